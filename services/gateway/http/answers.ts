/**
 * Bounds the memory of REST answers that clients have not read yet. While more than 32 M characters
 * wait, large answers are refused with BUSY, and the client that has not read for longest loses its
 * connection.
 */
import type { Response } from 'express';
import { Budget } from '../bounds/budget.ts';
import { PlankError } from './errors.ts';
import { entityTag } from './precondition.ts';

const maxCharacters = 32 * 1024 * 1024;
/** a client has this long to read an answer while others need the memory … */
const patienceMs = 1_500;
/** … and this long otherwise */
const takeMs = 5 * 60_000;
/** answers up to this size are never refused */
const smallCharacters = 64 * 1024;

export class Answers {
  readonly #room = new Budget(maxCharacters, patienceMs);

  /** Sends a row that was written. A truncated row gets no ETag, as a tag stands for the whole row. */
  sendWritten(response: Response, row: string): void {
    if (isTruncated(row)) setTruncated(response, 1);
    else response.set('ETag', entityTag(row));
    this.#send(response, row);
  }

  /**
   * Sends what was read, a single row with its tag. Throws PlankError BUSY if the answer is large
   * and there is no room.
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

  /** Takes only the size: a reference to the answer would keep it in memory after the socket has sent it. */
  async #wait(response: Response, characters: number): Promise<void> {
    const { socket } = response.req;
    // the client has left, so its socket will send no event
    if (socket.destroyed) return;
    const taken = new Promise<boolean>((resolve) => {
      response.once('finish', () => resolve(true));
      response.once('close', () => resolve(false));
    });
    this.#room.take(characters);
    try {
      await this.#room.taken(taken, response, takeMs);
    } catch {
      // part of the answer has been sent; a pipelined answer has no socket yet, so use the request's
      response.req.socket.destroy();
    } finally {
      this.#room.free(characters);
    }
  }
}

/** The row is above the size bound and comes without its large columns: such images begin with a blank. */
export const isTruncated = (row: string) => row.startsWith(' ');

/** Tells the client how many rows of the answer are truncated. */
export function setTruncated(response: Response, rows: number): void {
  if (rows > 0) response.set('Plank-Truncated', String(rows));
}
