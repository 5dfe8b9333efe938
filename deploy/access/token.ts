/**
 * Makes and checks tokens, for development. The settings AUTH_* come from the environment, as a gateway reads them.
 *
 *   npm run token -- make --sub ada [--role user] [--ttl 1h] [--claim org.id=5 …]
 *   npm run token -- check <token>
 *
 * `make` signs with AUTH_JWT_SECRET. The value of a claim is JSON, or else a text. `check` prints who the token is, or
 * the reason for which gateways refuse the token. Where DATABASE_URL is set, `check` also reads the revocations.
 * Exit status: 0, 1 if the token is refused, 2 if the command could not run.
 */
import { randomUUID } from 'node:crypto';
import { SignJWT } from 'jose';
import { Expiries } from '#gateway/access/expiries.ts';
import { Identities, TokenRefused } from '#gateway/access/identity.ts';
import { Revocations } from '#gateway/access/revocations.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import { readFlags } from '#shared/process/cli.ts';
import { gatewaySchema, readConfig } from '#shared/process/config.ts';
import { createLog, type Log } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics } from '#shared/process/metrics.ts';

const { shape } = gatewaySchema;
const auth = gatewaySchema.pick({
  AUTH: true,
  AUTH_JWT_SECRET: true,
  AUTH_PUBLIC_KEY: true,
  AUTH_JWKS_URL: true,
  AUTH_ISSUER: true,
  AUTH_AUDIENCE: true,
  AUTH_MAX_LIFETIME_S: true,
  AUTH_ROLE_CLAIM: true,
});
const schema = auth.extend({ DATABASE_URL: shape.DATABASE_URL.optional() });
const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
const usage = 'use "make --sub <user> [--role <role>] [--ttl 1h] [--claim <name>=<value>]" or "check <token>"';
/** claims that have an option or a setting of their own, or are set by this command */
const fixed: Readonly<Record<string, string>> = {
  sub: 'use --sub',
  exp: 'use --ttl',
  iat: 'it is the present time',
  iss: 'set AUTH_ISSUER',
  aud: 'set AUTH_AUDIENCE',
};

type Claims = Record<string, unknown>;

const print = (text: string) => process.stdout.write(`${text}\n`);

function settings() {
  // tokens exist only with AUTH=jwt, whatever AUTH is in this shell
  return readConfig(schema, { ...process.env, AUTH: 'jwt' });
}

function secondsOf(ttl: string): number {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(ttl) ?? [];
  if (!Number(count)) throw new Error('--ttl must be a number with a unit, such as 90s, 15m, 1h or 1d');
  return Number(count) * units[unit!]!;
}

/** Sets the claim with the dotted path `name`. */
function setClaim(claims: Claims, name: string, value: unknown): void {
  const path = name.split('.');
  if (path.includes('') || path.includes('__proto__'))
    throw new Error(`--claim ${name}: the name has an unusable part`);
  const last = path.pop()!;
  let at = claims;
  for (const member of path) {
    const next = Object.hasOwn(at, member) ? at[member] : (at[member] = {});
    if (typeof next !== 'object' || next === null || Array.isArray(next))
      throw new Error(`--claim ${name}: ${member} has a value already, so it has no members`);
    at = next as Claims;
  }
  at[last] = value;
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

async function make(args: string[]): Promise<void> {
  const { sub, role, ttl, claim } = readFlags(
    {
      sub: { type: 'string' },
      role: { type: 'string' },
      ttl: { type: 'string', default: '1h' },
      claim: { type: 'string', multiple: true, default: [] },
    },
    args,
  );
  const config = settings();
  if (sub === undefined) throw new Error('--sub is needed: the name of the user');
  if (config.AUTH_JWT_SECRET === undefined)
    throw new Error('AUTH_JWT_SECRET is needed to make tokens: with a public key, only its owner makes them');
  const seconds = secondsOf(ttl);
  if (seconds > config.AUTH_MAX_LIFETIME_S)
    throw new Error(
      `--ttl is above AUTH_MAX_LIFETIME_S (${config.AUTH_MAX_LIFETIME_S} s): gateways refuse such tokens`,
    );
  const claims: Claims = {};
  for (const one of claim) {
    const at = one.indexOf('=');
    if (at < 1) throw new Error(`--claim must be <name>=<value>, such as org.id=5, but is ${JSON.stringify(one)}`);
    const name = one.slice(0, at);
    if (Object.hasOwn(fixed, name)) throw new Error(`--claim ${name} cannot be set: ${fixed[name]}`);
    setClaim(claims, name, jsonOrText(one.slice(at + 1)));
  }
  if (role !== undefined) setClaim(claims, config.AUTH_ROLE_CLAIM, role);
  const now = Math.floor(Date.now() / 1_000);
  const token = new SignJWT({ jti: randomUUID(), ...claims, sub, iat: now, exp: now + seconds });
  token.setProtectedHeader({ alg: 'HS256' });
  if (config.AUTH_ISSUER !== undefined) token.setIssuer(config.AUTH_ISSUER);
  if (config.AUTH_AUDIENCE !== undefined) token.setAudience(config.AUTH_AUDIENCE);
  print(await token.sign(Buffer.from(config.AUTH_JWT_SECRET)));
}

type Revoked = Pick<Revocations, 'isRevoked'>;

/** Null: DATABASE_URL is not set, so it is not known which tokens were revoked. */
async function revocations(url: string | undefined, log: Log): Promise<Revoked | null> {
  if (url === undefined) return null;
  const settings = { applicationName: 'plank token', statementTimeoutMs: 5_000, max: 1, onError: () => {} };
  const pool = createPool(url, settings);
  try {
    const all = new Revocations({ pool, expiries: new Expiries(), log });
    await all.load();
    return all;
  } finally {
    await pool.end();
  }
}

async function check([token, ...rest]: string[]): Promise<void> {
  if (!token || rest.length > 0) throw new Error('check needs one token');
  const config = settings();
  const log = createLog('silent', 'token', 'token');
  const revoked = await revocations(config.DATABASE_URL, log);
  const identities = new Identities(
    { ...config, CORS_ORIGINS: [] },
    {
      revocations: revoked ?? { isRevoked: () => false },
      tickets: { redeem: async () => null },
      limits: { mayTryToken: () => {}, countRefused: async () => {} },
      log,
      metrics: gatewayMetrics(createRegistry('token')),
    },
  );
  const { user, role, expiresAt, tokenId } = await identities.ofToken(token, 'here');
  const minutes = Math.floor((expiresAt - Date.now() / 1_000) / 60);
  print(`user     ${user}`);
  print(`role     ${role}`);
  print(`expires  ${new Date(expiresAt * 1_000).toISOString()} (in ${minutes} min)`);
  print(`jti      ${tokenId ?? '(none: the token can be revoked only with all tokens of its user)'}`);
  print(`revoked  ${revoked ? 'no' : 'not examined: DATABASE_URL is not set'}`);
}

try {
  const [command, ...args] = process.argv.slice(2);
  if (command === 'make') await make(args);
  else if (command === 'check') await check(args);
  else throw new Error(usage);
} catch (error) {
  const refused = error instanceof TokenRefused ? `refused (${error.reason}): ` : '';
  process.stderr.write(`plank token: ${refused}${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = refused === '' ? 2 : 1;
}
