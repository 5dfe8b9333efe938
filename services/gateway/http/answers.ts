/**
 * Bounds the memory of REST answers that clients have not read yet. While 32 M characters (32 × 1024²) or
 * more wait, large answers are refused with BUSY. With each refusal, the client that has let an answer
 * wait for longest loses its connection, if that answer has waited for 1.5 s or more.
 */
import type { Response } from 'express';
import { Budget } from '../bounds/budget.ts';
import { PlankError } from './errors.ts';
import { entityTag } from './precondition.ts';
import type { WrittenRow } from './table-view.ts';

const maxCharacters = 32 * 1024 * 1024;
/** while other clients need the memory, a client has this long to read an answer … */
const patienceMs = 1_500;
/** … and otherwise this long */
const takeMs = 5 * 60_000;
/** answers up to this size are never refused */
const smallCharacters = 64 * 1024;

export class Answers {
  readonly #room = new Budget(maxCharacters, patienceMs);

  /**
   * Sends a row after it was written. A truncated row gets no ETag, as a tag stands for the whole row, nor does a row
   * of which only the key may be read.
   */
  sendWritten(response: Response, { row, isSeen = true }: WrittenRow): void {
    if (isTruncated(row)) setTruncated(response, 1);
    else if (isSeen) response.set('ETag', entityTag(row));
    this.#send(response, row);
  }

  /**
   * Sends rows after they were read: a page of rows, or one row with its `tag`. Throws PlankError BUSY if
   * the answer is large and there is no room for it.
   */
  sendRead(response: Response, json: string, tag?: string): void {
    if (json.length > smallCharacters && !this.#room.makeRoom())
      throw new PlankError('BUSY', 'Too many answers of this replica wait to be read: try again');
    if (tag !== undefined) response.set('ETag', tag);
    this.#send(response, json);
  }

  /** Sends `json` unchanged. */
  #send(response: Response, json: string): void {
    response.set('Cache-Control', 'no-cache').type('application/json').send(json);
    void this.#wait(response, json.length);
  }

  /**
   * Gets only the size of the answer: a reference to the answer would keep it in memory after the socket
   * has sent it.
   */
  async #wait(response: Response, characters: number): Promise<void> {
    const { socket } = response.req;
    // the client has left, so its socket emits no more events
    if (socket.destroyed) return;
    const taken = new Promise<boolean>((resolve) => {
      response.once('finish', () => resolve(true));
      response.once('close', () => resolve(false));
    });
    this.#room.take(characters);
    try {
      await this.#room.taken(taken, response, takeMs);
    } catch {
      // part of the answer has been sent, so the connection must end. A pipelined answer has no socket of
      // its own yet, so this destroys the request's socket.
      response.req.socket.destroy();
    } finally {
      this.#room.free(characters);
    }
  }
}

/**
 * Whether the row is above the size bound and comes without its large columns. The image of such a row
 * begins with a blank.
 */
export const isTruncated = (row: string) => row.startsWith(' ');

/** Tells the client how many rows of the answer are truncated. */
export function setTruncated(response: Response, rows: number): void {
  if (rows > 0) response.set('Plank-Truncated', String(rows));
}
