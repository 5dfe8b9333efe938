/**
 * The tokens that are refused although they have not expired, by plank.revoke and plank.revoke_token. A revocation is
 * an event in the log: its clients are ended when this gateway reaches its position, before any later change is
 * delivered.
 */
import { z } from 'zod';
import { limited, type Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { Expiries } from './expiries.ts';
import type { Identity } from './viewer.ts';

/** short, as the log waits for it */
const loadMs = 4_000;

/** All tokens of a user that were issued up to `before`, in seconds since 1970; or one token. */
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
  /** the highest id of those that were applied; those with lower ids were applied too */
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
   * Rows that were read when the database had a revocation with this id may be later than the revocation's position.
   * Resolves when it is applied. Rejects if Postgres does not answer.
   */
  async reach(id: number): Promise<void> {
    if (id > this.#last) await this.load();
  }

  /** Applies an event of the log, and ends its clients. */
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
