/**
 * Tickets, for clients that can send neither a header nor a first message: plain WebSockets and EventSource in
 * browsers. A ticket stands for a token that was checked. The ticket is valid for one use, at any replica, and for
 * 30 s. A ticket in a URL can get into a proxy's log. By then, the ticket was used and is no longer valid.
 */
import { hash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { SharedState } from '#shared/bus/shared-state.ts';
import type { Identity } from './viewer.ts';

const ttlMs = 30_000;

const kept = z.object({
  user: z.string(),
  role: z.string(),
  claims: z.record(z.string(), z.unknown()),
  expiresAt: z.number(),
  issuedAt: z.number(),
  tokenId: z.string().nullable(),
});

export class Tickets {
  readonly #shared: SharedState;

  constructor(shared: SharedState) {
    this.#shared = shared;
  }

  /** Rejects if the ticket cannot be stored. */
  async issue(identity: Identity): Promise<{ ticket: string; expires_in_s: number }> {
    const ticket = randomBytes(24).toString('base64url');
    await this.#shared.keep(nameOf(ticket), JSON.stringify(kept.parse(identity)), ttlMs);
    return { ticket, expires_in_s: ttlMs / 1_000 };
  }

  /**
   * Returns the identity that the ticket stands for, and makes the ticket invalid. Null: the ticket was never issued,
   * was used, or is too old. Rejects if the store of tickets does not answer.
   */
  async redeem(ticket: string): Promise<Identity | null> {
    const text = await this.#shared.take(nameOf(ticket));
    return text === null ? null : kept.parse(JSON.parse(text));
  }
}

/** Tickets are stored under their hash, so that a reader of the store cannot use the tickets in it. */
const nameOf = (ticket: string): string => `ticket:${hash('sha256', ticket, 'base64url')}`;
