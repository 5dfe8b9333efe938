/** What is spoken on a WebSocket: plain mode (plain.ts) or plank.v1 (session.ts). */
import type { Cursor } from '../relay/cursor.ts';

export interface Protocol {
  readonly cursors: readonly Cursor[];
  /** the client knows a position, from which it can go on elsewhere */
  readonly resumes: boolean;
  receive(text: string): void;
  /** Called on the rhythm of positions: tells a quiet client that changes can reach it. */
  tick(now: number): void;
  /** Announces that the connection will be closed after this time. */
  warn(afterMs: number): void;
  /** The connection has closed. */
  end(): void;
}
