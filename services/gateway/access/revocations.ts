/**
 * Tokens that plank.revoke or plank.revoke_token revoked: they are refused although they have not expired. A
 * revocation is an event in the log. When this gateway reaches the event, it ends the clients with a revoked token,
 * and only then delivers later changes.
 */
import { z } from 'zod';
import { limited, type Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { Expiries } from './expiries.ts';
import type { Identity } from './viewer.ts';

/** the time for the query is short, because the gateway delivers no changes of the log while it waits for the query */
const loadMs = 4_000;

/** Either all tokens of `user` that were issued up to `before` (in seconds since 1970), or the token with one `jti`. */
const revocation = z.union([
  z.object({ user: z.string(), before: z.number(), id: z.number() }),
  z.object({ token: z.string(), id: z.number() }),
]);

interface RevocationsDeps {
  pool: Pool;
  expiries: Expiries;
  log: Log;
}

export class Revocations {
  readonly #deps: RevocationsDeps;
  readonly #users = new Map<string, number>();
  readonly #tokens = new Set<string>();
  /** the highest id of the revocations that were applied; all revocations with lower ids were applied too */
  #last = 0;

  constructor(deps: RevocationsDeps) {
    this.#deps = deps;
  }

  /** Applies all revocations in the database. Rejects if Postgres does not answer. */
  async load(): Promise<void> {
    const { rows } = await this.#deps.pool.query<{ text: string }>(
      limited(
        loadMs,
        `select json_strip_nulls(json_build_object(
           'user', "user", 'before', extract(epoch from before)::bigint, 'token', token, 'id', id))::text as text
         from plank.revocations`,
      ),
    );
    // the database may have been restored, and its ids may have begun again
    this.#last = 0;
    for (const { text } of rows) this.#add(text);
    this.#deps.expiries.revoke((identity) => this.isRevoked(identity));
  }

  /**
   * Applies the revocations up to this id, if they were not applied yet. A snapshot of rows can be ahead of this
   * gateway's position. Its rows may then be sent only after the revocations that the snapshot contains were applied.
   * Rejects if Postgres does not answer.
   */
  async reach(id: number): Promise<void> {
    if (id > this.#last) await this.load();
  }

  /** Applies a revocation of the log, and ends the clients whose tokens are revoked. */
  apply(text: string): void {
    this.#add(text);
    this.#deps.expiries.revoke((identity) => this.isRevoked(identity));
    this.#deps.log.info('tokens were revoked');
  }

  #add(text: string): void {
    const one = parsed(text);
    if (one === null) return this.#deps.log.error('a revocation cannot be read, and has no effect');
    this.#last = Math.max(this.#last, one.id);
    if ('token' in one) this.#tokens.add(one.token);
    else this.#users.set(one.user, Math.max(one.before, this.#users.get(one.user) ?? 0));
  }

  isRevoked({ user, issuedAt, tokenId }: Identity): boolean {
    const before = this.#users.get(user);
    return (before !== undefined && issuedAt <= before) || (tokenId !== null && this.#tokens.has(tokenId));
  }
}

function parsed(text: string): z.infer<typeof revocation> | null {
  try {
    return revocation.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
