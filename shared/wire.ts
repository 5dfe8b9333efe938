/**
 * The words of the WebSocket protocol: actions, close codes, positions. Constants and types; imports nothing, so that the
 * SDK can share it.
 */

export type RowAction = 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';

/** A change as plain-mode clients get it. `id` is the primary key: a value, or an object for a composite one. */
export interface ChangeMessage {
  table: string;
  action: RowAction;
  id: unknown;
  data: Record<string, unknown> | null;
  pos: string;
}

/** 44xx: the client's fault, stop. 45xx: ours, come back with jitter. Reasons are at most 123 bytes of UTF-8. */
export const closeCodes = {
  restart: 1012,
  malformed: 4400,
  forbidden: 4403,
  positionGone: 4410,
  tooLarge: 4413,
  tooMany: 4429,
  internal: 4500,
  tooSlow: 4508,
} as const;

/** A place in the log. Clients see "e<epoch>.<seq>" and treat it as opaque. */
export interface Position {
  epoch: number;
  seq: number;
}

export function formatPosition(position: Position): string {
  return `e${position.epoch}.${position.seq}`;
}

/** Null where the text is no position. */
export function parsePosition(text: string): Position | null {
  const match = /^e(\d{1,10})\.(\d{1,15})$/.exec(text);
  return match ? { epoch: Number(match[1]), seq: Number(match[2]) } : null;
}
