/**
 * Turns the environment into a typed, frozen configuration. Only this file reads the environment. All problems are
 * reported at once, by the names of the settings. The tables of docs/configuration.md repeat the descriptions in this
 * file, and a test keeps both equal.
 */
import { hostname } from 'node:os';
import { z } from 'zod';
import {
  bytes,
  distance,
  hmacSecret,
  host,
  integer,
  ms,
  networks,
  oneOf,
  origins,
  pattern,
  port,
  postgresUrl,
  redisUrl,
  webUrl,
} from './setting-types.ts';

const common = {
  DATABASE_URL: postgresUrl.describe('Postgres, as `postgres://user:password@host:port/database`'),
  REDIS_URL: redisUrl
    .optional()
    .describe('Redis or Valkey, as `redis://host:port`; required if listener and gateways are separate processes'),
  PLANK_LOG_NAME: pattern('1 to 40 letters, digits, "-" and "_"', /^[a-z0-9_-]{1,40}$/i)
    .default('plank')
    .describe('Prefix of the Redis keys; set it if several databases share one Redis'),
  NODE_NAME: pattern('1 to 64 letters, digits, "-", "_" and "."', /^[\w.-]{1,64}$/)
    .default(hostname())
    .describe('The name of this process in logs, metrics and on the test page (default: the host name)'),
  LOG_LEVEL: oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent')
    .default('info')
    .describe('The lowest level that is logged'),
  STOP_TIMEOUT_MS: ms().default(10_000).describe('How long a process may take to stop after SIGTERM, in ms'),
};

const hostField = host
  .default('localhost')
  .describe(
    'The address that `PORT` and `LISTENER_PORT` listen on. `localhost`: this machine only, IPv4 and IPv6; `::`: every address, as in containers',
  );

export const listenerSchema = z.object({
  ...common,
  HOST: hostField,
  LISTENER_PORT: port.default(8001).describe('Where the listener serves `/health` and `/metrics`'),
  WAKE: oneOf('auto', 'poll')
    .default('auto')
    .describe(
      '`auto`: NOTIFY while changes are rare, polling while they are not; `poll`: never NOTIFY, for databases that use two-phase commit',
    ),
  POLL_INTERVAL_MS: ms().default(20).describe('With `WAKE=poll`, the pause after a drain that found nothing, in ms'),
  SAFETY_INTERVAL_MS: ms()
    .default(3_000)
    .describe('How often the listener drains without a notification, in ms, in case one was lost'),
  LEASE_MS: ms(500).default(3_000).describe('How long after its last sign of life a leader keeps the lead, in ms'),
  CANARY_INTERVAL_MS: ms(0)
    .default(5_000)
    .describe(
      'How often the leader commits a canary, in ms; 0: never. Every gateway must receive it, and no client gets it',
    ),
  RETENTION_MS: ms(1, 365 * 86_400_000)
    .default(3_600_000)
    .describe('How long the log is kept, in ms: a client can be away for so long and resume'),
  RETENTION_BYTES: bytes.default(4 * 1024 ** 3).describe('How large the log may grow, in bytes'),
  STREAM_BYTES: bytes.default(64 * 1024 ** 2).describe('How much of the log Redis keeps, in bytes'),
});

const authField = oneOf('off', 'jwt');
const authText =
  '`jwt`: clients need a valid token; `off`: everybody who reaches the gateway may read and write all attached tables. A gateway that is a process of its own (`npm run gateway`) does not start without it';

export const gatewaySchema = z.object({
  ...common,
  HOST: hostField,
  AUTH: authField.default('off').describe(authText),
  AUTH_JWT_SECRET: hmacSecret
    .optional()
    .describe('With `AUTH=jwt`, the secret of tokens that are signed with HS256: at least 32 bytes'),
  AUTH_PUBLIC_KEY: pattern('a public key', /./)
    .optional()
    .describe(
      'With `AUTH=jwt`, the public key of tokens (RSA from 2048 bits, EC, Ed25519): PEM, a JWK or a JWK set, or the path of a file with one',
    ),
  AUTH_JWKS_URL: webUrl
    .optional()
    .describe('With `AUTH=jwt`, where the public keys of tokens are fetched, as a JWK set'),
  AUTH_ISSUER: pattern('at most 1,000 characters', /^.{1,1000}$/)
    .optional()
    .describe('The `iss` that tokens must have; unset: any'),
  AUTH_AUDIENCE: pattern('at most 1,000 characters', /^.{1,1000}$/)
    .optional()
    .describe('The `aud` that tokens must have, or have among others; unset: any'),
  AUTH_MAX_LIFETIME_S: integer(' of seconds, without a unit', 1, 365 * 86_400)
    .default(86_400)
    .describe('The longest lifetime of a token, in seconds'),
  AUTH_COOKIE: pattern('the name of a cookie', /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/)
    .optional()
    .describe(
      'With `AUTH=jwt`, a cookie whose value may be the token; needs a list of origins in `CORS_ORIGINS`, as browsers send cookies with requests of foreign pages',
    ),
  AUTH_ROLE_CLAIM: pattern('at most 200 characters', /^.{1,200}$/)
    .default('role')
    .describe(
      'The claim with the role, a name or a path with dots (`realm.role`); the role is `authenticated` without it',
    ),
  LIMIT_USER_CONNECTIONS: integer('', 1)
    .default(50)
    .describe('With `AUTH=jwt`, how many connections one user may have, over all gateways'),
  LIMIT_ADDRESS_CONNECTIONS: integer('', 1)
    .default(1_000)
    .describe('With `AUTH=jwt`, how many connections may come from one address, over all gateways'),
  LIMIT_REQUESTS_PER_SECOND: integer('', 1)
    .default(100)
    .describe(
      'With `AUTH=jwt`, how many REST requests one user, or one address without a token, may send in a second; twice as many at once',
    ),
  LIMIT_REFUSED_TOKENS: integer('', 1)
    .default(20)
    .describe('With `AUTH=jwt`, how many tokens of one address may be refused in a minute; then none is checked'),
  TRUSTED_PROXIES: networks
    .default(['loopback', 'linklocal', 'uniquelocal'])
    .describe(
      'Networks of the proxies whose `X-Forwarded-For` says where a client comes from, separated by commas; `none`: no proxy. `uniquelocal` are the private networks',
    ),
  REDIS_TAIL_URL: redisUrl
    .optional()
    .describe(
      'A replica of the Redis of `REDIS_URL`, from which this gateway reads changes, if one Redis cannot serve all gateways (default: `REDIS_URL`)',
    ),
  PORT: port.default(8000).describe('Where the gateway serves REST, WebSocket, `/health` and `/metrics`'),
  OPS_PORT: port
    .default(0)
    .describe(
      'The port where the gateway serves operators (`/console`, `/ops`); do not expose it. 0: any free port, logged',
    ),
  OPS_HOST: host.default('localhost').describe('The address that `OPS_PORT` listens on, as with `HOST`'),
  OPS_TOKEN: pattern('at least 16 characters', /^.{16,}$/)
    .optional()
    .describe('The token that operators need; set it if others than operators can reach `OPS_PORT`'),
  CORS_ORIGINS: origins
    .default(['*'])
    .describe('Origins of pages that may use REST and WebSocket, comma-separated; `*`: any'),
  MAX_CONNECTIONS: integer('', 1, 10_000_000)
    .default(50_000)
    .describe('How many connections a gateway accepts, WebSockets and event streams together'),
  MAX_BODY_BYTES: bytes.default(256 * 1024).describe('The largest REST body, in bytes'),
  MAX_QUEUE_BYTES: bytes
    .default(1024 ** 2)
    .describe('Unsent bytes at which a gateway stops pushing to a slow client, which then catches up at its own pace'),
  RING_BYTES: bytes
    .default(64 * 1024 ** 2)
    .describe(
      'How much of the recent log a gateway keeps in memory for clients that catch up, in bytes; pages of history that slow clients hold may take as much again',
    ),
  PING_INTERVAL_MS: ms()
    .default(25_000)
    .describe('How often a silent client is pinged, in ms; a client that misses a ping is disconnected'),
  STALL_TIMEOUT_MS: ms()
    .default(300_000)
    .describe('How long a client may read nothing while data waits for it, in ms; then it is disconnected'),
  DRAIN_WINDOW_MS: ms()
    .default(5_000)
    .describe(
      'How long a gateway that stops or is drained takes to close its clients one after the other, in ms; at least 4,000 below `STOP_TIMEOUT_MS`',
    ),
  SHED_PER_SECOND: integer('', 0, 10_000)
    .default(20)
    .describe(
      'How many connections a second a gateway above its share gives to the others, after scaling up or a restart; 0: none',
    ),
  POOL_SIZE: integer('', 2, 1_000)
    .default(10)
    .describe(
      'Postgres connections for REST; a gateway uses up to 20 more for the relay, snapshots and operators, and with `AUTH=jwt` up to 3 more for sets of policies',
    ),
});

export const migrateSchema = z.object({
  DATABASE_URL: common.DATABASE_URL,
  PLANK_SAMPLE: oneOf('true', 'false')
    .default('false')
    .describe(
      '`true`: makes the sample table `items` of the quick start, once, unless something else has that name. `true` is the default in the databases that Plank starts itself',
    ),
});

/**
 * The settings that are required if listener and gateways are separate processes, which reach each other only through
 * Redis.
 */
const separate = {
  REDIS_URL: redisUrl.describe('listener and gateways, as separate processes, need a common Redis'),
};
export const listenerProcessSchema = listenerSchema.extend(separate);
/** Here AUTH has no default: a gateway must not serve everybody only because a setting was left out. */
export const gatewayProcessSchema = gatewaySchema.extend({ ...separate, AUTH: authField.describe(authText) });

/** The settings of `npm start`, which runs a listener and a gateway in one process. */
export const startSchema = listenerSchema.extend(gatewaySchema.shape).extend(migrateSchema.shape);

/** The settings of a deployment that the doctor needs. */
export const doctorSchema = listenerSchema
  .pick({
    DATABASE_URL: true,
    REDIS_URL: true,
    PLANK_LOG_NAME: true,
    WAKE: true,
    RETENTION_MS: true,
    RETENTION_BYTES: true,
    STREAM_BYTES: true,
  })
  .extend(gatewaySchema.pick({ MAX_CONNECTIONS: true, HOST: true, AUTH_AUDIENCE: true, AUTH_ISSUER: true }).shape);

export type ListenerConfig = Readonly<z.infer<typeof listenerSchema>>;
export type GatewayConfig = Readonly<z.infer<typeof gatewaySchema>>;

export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** the part of STOP_TIMEOUT_MS that must remain after the gateway has asked its last client to leave */
const leaveMs = 4_000;
/** settings whose values are never printed: they contain a password or a token */
const secrets = [
  'DATABASE_URL',
  'REDIS_URL',
  'REDIS_TAIL_URL',
  'OPS_TOKEN',
  'AUTH_JWT_SECRET',
  'AUTH_PUBLIC_KEY',
  'AUTH_JWKS_URL',
];
const authKeys = ['AUTH_JWT_SECRET', 'AUTH_PUBLIC_KEY', 'AUTH_JWKS_URL'];

/**
 * Reads the settings of `schema` from the environment. If any variable is wrong, throws a ConfigError that names all
 * wrong variables in one line. White space around a value is ignored, because a secret from a file may end with a
 * newline. An empty variable counts as unset.
 */
export function readConfig<S extends z.ZodObject>(
  schema: S,
  env: NodeJS.ProcessEnv = process.env,
): Readonly<z.infer<S>> {
  const values: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [name, field] of Object.entries<z.ZodType>(schema.shape)) {
    const given = env[name]?.trim() || undefined;
    const parsed = field.safeParse(given);
    if (parsed.success) {
      if (parsed.data !== undefined) values[name] = parsed.data;
    } else if (given === undefined) problems.push(`${name} is not set: ${field.description}`);
    else {
      const shown = secrets.includes(name) ? '' : `, but is ${JSON.stringify(given.slice(0, 60))}`;
      problems.push(`${name} ${parsed.error.issues.map(({ message }) => message).join(', ')}${shown}`);
    }
  }
  const { DRAIN_WINDOW_MS: windowMs, STOP_TIMEOUT_MS: stopMs } = values;
  if (typeof windowMs === 'number' && typeof stopMs === 'number' && windowMs + leaveMs > stopMs)
    problems.push(
      `DRAIN_WINDOW_MS must be at least ${leaveMs} below STOP_TIMEOUT_MS (${stopMs}), but is ${windowMs}: a gateway would not stop in time`,
    );
  if ('AUTH' in values) problems.push(...authProblems(values, env));
  if (problems.length > 0) throw new ConfigError(`configuration: ${problems.join('; ')}`);
  return Object.freeze(values) as Readonly<z.infer<S>>;
}

/**
 * Returns the problems with the keys of tokens. If a key is given and wrong, it still counts as given, because
 * readConfig reports its own problem.
 */
function authProblems(
  { AUTH: auth, AUTH_COOKIE: cookie, CORS_ORIGINS: origins }: Record<string, unknown>,
  env: NodeJS.ProcessEnv,
): string[] {
  const given = authKeys.filter((name) => env[name]?.trim());
  if (auth === 'off') return given.map((name) => `${name} is set, but AUTH is off: set AUTH=jwt, or remove it`);
  const problems: string[] = [];
  if (cookie !== undefined && Array.isArray(origins) && origins.includes('*'))
    problems.push('AUTH_COOKIE needs a list of origins in CORS_ORIGINS: with *, any page could use the cookie');
  if (given.length !== 1)
    problems.push(
      `AUTH=jwt needs exactly one of ${authKeys.join(', ')}, but ${given.length === 0 ? 'none' : given.join(', ')} is set`,
    );
  return problems;
}

/** Returns one line for each variable whose name resembles a setting of Plank but is none. */
export function misspelt(env: NodeJS.ProcessEnv = process.env): string[] {
  const known = Object.keys(startSchema.shape);
  const others = /^PLANK_(URL|DATABASE_URL|REDIS_URL|TEST_\w+|\w*_(SERVICE|PORT)(_\w+)?)$/;
  return Object.keys(env).flatMap((name) => {
    if (known.includes(name) || others.test(name)) return [];
    const most = name.length < 5 ? 0 : name.length < 9 ? 1 : 2;
    const near = known.find((each) => distance(name.toUpperCase(), each, most) <= most);
    if (near) return [`${name} is not a setting of Plank; did you mean ${near}?`];
    return name.startsWith('PLANK_') ? [`${name} is not a setting of Plank`] : [];
  });
}
