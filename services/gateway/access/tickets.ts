/**
 * Tickets, for clients that can send neither a header nor a first message: plain WebSockets and EventSource in
 * browsers. A ticket stands for a token that was checked. It is good once, at any replica, and for 30 s. It may be part
 * of a URL, and so of a proxy's log: when it is there, it is used up.
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

  /** Rejects if the ticket cannot be kept. */
  async issue(identity: Identity): Promise<{ ticket: string; expires_in_s: number }> {
    const ticket = randomBytes(24).toString('base64url');
    await this.#shared.keep(nameOf(ticket), JSON.stringify(kept.parse(identity)), ttlMs);
    return { ticket, expires_in_s: ttlMs / 1_000 };
  }

  /** Whom the ticket stands for; null: it was never issued, was used, or is too old. Rejects if that is not known. */
  async redeem(ticket: string): Promise<Identity | null> {
    const text = await this.#shared.take(nameOf(ticket));
    return text === null ? null : kept.parse(JSON.parse(text));
  }
}

/** A hash, so that who reads the store cannot use the tickets in it. */
const nameOf = (ticket: string): string => `ticket:${hash('sha256', ticket, 'base64url')}`;
