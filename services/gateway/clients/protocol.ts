/** The protocol on a WebSocket: plain mode (plain.ts) or plank.v1 (session.ts). */
import type { Cursor } from '../relay/cursor.ts';

export interface Protocol {
  readonly cursors: readonly Cursor[];
  /** true: the client has a position, so it can resume on another replica */
  readonly resumes: boolean;
  receive(text: string): void;
  /** Called every `positionEveryMs`: sends a quiet client a position, which shows that changes can reach it. */
  tick(now: number): void;
  /** Announces to the client that this replica will close the connection after this time. */
  warn(afterMs: number): void;
  /** Called when the connection has closed. */
  end(): void;
}
