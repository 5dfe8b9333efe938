/**
 * Answers of REST on their way to clients, in characters: large ones are refused while too many wait to be taken, and the client that has let
 * one wait for longest loses its connection then.
 */
import type { Response } from 'express';
import { Room } from '../bounds/byte-budget.ts';
import { PlankError } from './errors.ts';
import { entityTag } from './precondition.ts';

const maxCharacters = 32 * 1024 * 1024;
/** where others wait … */
const patienceMs = 1_500;
/** … and at most */
const takeMs = 5 * 60_000;
/** what need not be refused */
const smallCharacters = 64 * 1024;

export class Answers {
  readonly #room = new Room(maxCharacters, patienceMs);

  /** A row that was written, with a tag that it can be written by: of all of it, or none. */
  sendWritten(response: Response, row: string): void {
    if (isTruncated(row)) tellTruncated(response, 1);
    else response.set('ETag', entityTag(row));
    this.#send(response, row);
  }

  /** What was read, a row with its tag: a large one is refused where there is no room for it. Throws PlankError BUSY. */
  sendRead(response: Response, json: string, tag?: string): void {
    if (json.length > smallCharacters && !this.#room.makeRoom())
      throw new PlankError('BUSY', 'Too many answers wait for their clients here: try again');
    if (tag !== undefined) response.set('ETag', tag);
    this.#send(response, json);
  }

  /** `json` is sent byte for byte. */
  #send(response: Response, json: string): void {
    response.set('Cache-Control', 'no-cache').type('application/json').send(json);
    void this.#wait(response, json.length);
  }

  /** Without the answer itself, which is kept no longer than the socket keeps it. */
  async #wait(response: Response, characters: number): Promise<void> {
    const { socket } = response.req;
    // nothing more is heard of a client that has left
    if (socket.destroyed) return;
    const taken = new Promise<boolean>((resolve) => {
      response.once('finish', () => resolve(true));
      response.once('close', () => resolve(false));
    });
    this.#room.take(characters);
    try {
      await this.#room.taken(taken, response, takeMs);
    } catch {
      // half of it cannot be taken back; an answer that waits behind another has no socket of its own yet
      response.req.socket.destroy();
    } finally {
      this.#room.free(characters);
    }
  }
}

/** It is above the bound, and lacks its large columns. */
export const isTruncated = (row: string) => row.startsWith(' ');

/** Says how many rows are. */
export function tellTruncated(response: Response, rows: number): void {
  if (rows > 0) response.set('Plank-Truncated', String(rows));
}
