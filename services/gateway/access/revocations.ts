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
const revocation = z.union([z.object({ user: z.string(), before: z.number() }), z.object({ token: z.string() })]);

interface RevocationsDeps {
  pool: Pool;
  expiries: Expiries;
  log: Log;
}

export class Revocations {
  readonly #deps: RevocationsDeps;
  #users = new Map<string, number>();
  #tokens = new Set<string>();

  constructor(deps: RevocationsDeps) {
    this.#deps = deps;
  }

  /** Rejects if Postgres does not answer. */
  async load(): Promise<void> {
    const { rows } = await this.#deps.pool.query<{ text: string }>(
      limited(
        loadMs,
        `select json_strip_nulls(json_build_object(
           'user', "user", 'before', extract(epoch from before)::bigint, 'token', token))::text as text
         from plank.revocations`,
      ),
    );
    this.#users = new Map();
    this.#tokens = new Set();
    for (const { text } of rows) this.#add(text);
    this.#deps.expiries.revoke((identity) => this.isRevoked(identity));
  }

  /** Applies an event of the log, and ends its clients. */
  apply(text: string): void {
    this.#add(text);
    this.#deps.expiries.revoke((identity) => this.isRevoked(identity));
    this.#deps.log.info('tokens were revoked');
  }

  #add(text: string): void {
    const one = parsed(text);
    if (one === null) this.#deps.log.error('a revocation cannot be read, and has no effect');
    else if ('token' in one) this.#tokens.add(one.token);
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
