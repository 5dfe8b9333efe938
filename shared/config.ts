/**
 * Environment → typed, frozen configuration. The only place that reads the environment. All problems are reported at once,
 * by name; README's table is generated from these descriptions and a test keeps it equal.
 */
import { hostname } from 'node:os';
import { z } from 'zod';

const port = z.coerce.number().int().min(0).max(65535);
const ms = z.coerce.number().int().min(1).max(86_400_000);
const bytes = z.coerce.number().int().min(1024);
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean),
);

const redisUrl = z.string().regex(/^rediss?:\/\//, 'must be a redis:// URL');

const host = z.string().regex(/^[a-z0-9._:-]+$/i, 'must be an address or a name, without a port');

const common = {
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, 'must be a postgres:// URL')
    .describe('Postgres, as `postgres://user:password@host:port/database`'),
  REDIS_URL: redisUrl
    .optional()
    .describe('Redis or Valkey, as `redis://host:port`; needed when listener and gateways are processes of their own'),
  PLANK_LOG_NAME: z
    .string()
    .regex(/^[a-z0-9_-]{1,40}$/i)
    .default('plank')
    .describe('Names the Redis keys, where several databases share one Redis'),
  NODE_NAME: z
    .string()
    .regex(/^[\w.-]{1,64}$/)
    .default(hostname())
    .describe('What this process is called in logs, metrics and on the test page (default: the host name)'),
  LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'])
    .default('info')
    .describe('How much is logged'),
  STOP_TIMEOUT_MS: ms.default(10_000).describe('How long a process may take to stop after SIGTERM, in ms'),
};

const hostField = host
  .default('localhost')
  .describe(
    'The address that `PORT` and `LISTENER_PORT` listen on. `localhost`: this machine only, by IPv4 and IPv6; `::`: every address of it, as in containers',
  );

export const listenerSchema = z.object({
  ...common,
  HOST: hostField,
  LISTENER_PORT: port.default(8001).describe('Where the listener serves `/health` and `/metrics`'),
  WAKE: z
    .enum(['auto', 'poll'])
    .default('auto')
    .describe(
      '`auto`: NOTIFY while changes are rare, polling while they are not; `poll`: never NOTIFY, for databases that use two-phase commit',
    ),
  POLL_INTERVAL_MS: ms.default(20).describe('With `WAKE=poll`, the pause between drains that found nothing, in ms'),
  SAFETY_INTERVAL_MS: ms
    .default(3_000)
    .describe('How often the listener looks for changes that nothing announced, in ms'),
  LEASE_MS: ms.min(500).default(3_000).describe('How long the lead lasts when the leader falls silent, in ms'),
  CANARY_INTERVAL_MS: z.coerce
    .number()
    .int()
    .min(0)
    .max(86_400_000)
    .default(5_000)
    .describe(
      'How often the leader commits a canary, which every gateway must see coming and no client gets, in ms; 0: never',
    ),
  RETENTION_MS: z.coerce
    .number()
    .int()
    .min(1)
    .max(365 * 86_400_000)
    .default(3_600_000)
    .describe('How long the log is kept for clients that come back, in ms'),
  RETENTION_BYTES: bytes.default(4 * 1024 ** 3).describe('How large the log may grow, in bytes'),
  STREAM_BYTES: bytes.default(64 * 1024 ** 2).describe('How much of the log Redis keeps, in bytes'),
});

const gatewayFields = z.object({
  ...common,
  HOST: hostField,
  REDIS_TAIL_URL: redisUrl
    .optional()
    .describe(
      'A replica of that Redis, for this gateway to read changes from where more gateways read than one Redis serves (default: `REDIS_URL`)',
    ),
  PORT: port.default(8000).describe('Where the gateway serves REST, WebSocket, `/health` and `/metrics`'),
  OPS_PORT: port
    .default(0)
    .describe(
      'Where the gateway serves operators: `/console` and `/ops`; keep it from the outside. 0: any free one, logged',
    ),
  OPS_HOST: host.default('localhost').describe('The address that `OPS_PORT` listens on, as with `HOST`'),
  OPS_TOKEN: z.string().min(16).optional().describe('What operators must bring, where more people reach `OPS_PORT`'),
  CORS_ORIGINS: list
    .default(['*'])
    .describe('Origins that browsers may use REST and WebSocket from, comma-separated; `*`: any'),
  MAX_CONNECTIONS: z.coerce
    .number()
    .int()
    .min(1)
    .default(50_000)
    .describe('Connections that one gateway accepts, WebSockets and event streams'),
  MAX_BODY_BYTES: bytes.default(256 * 1024).describe('The largest REST body, in bytes'),
  MAX_QUEUE_BYTES: bytes
    .default(1024 ** 2)
    .describe('Unsent bytes at which a slow client stops getting pushes and catches up at its own pace'),
  RING_BYTES: bytes
    .default(64 * 1024 ** 2)
    .describe('How much of the recent log each gateway keeps in memory for clients that catch up, in bytes'),
  PING_INTERVAL_MS: ms
    .default(25_000)
    .describe('How often a silent client is pinged, in ms; one that misses a ping is dropped'),
  STALL_TIMEOUT_MS: ms.default(300_000).describe('How long a client may read nothing while data waits for it, in ms'),
  DRAIN_WINDOW_MS: ms
    .default(5_000)
    .describe(
      'Over how long a gateway that stops or is drained closes its clients, one after the other, in ms; at least 4,000 below `STOP_TIMEOUT_MS`',
    ),
  SHED_PER_SECOND: z.coerce
    .number()
    .int()
    .min(0)
    .max(10_000)
    .default(20)
    .describe(
      'Connections a second that a gateway with more than its share gives to the others, after a scale-up or a restart; 0: none',
    ),
  POOL_SIZE: z.coerce
    .number()
    .int()
    .min(2)
    .max(1000)
    .default(10)
    .describe(
      'Postgres connections for REST; a gateway uses up to 20 more for the relay, for snapshots and for operators',
    ),
});

/** goodbyes and what is released behind them, after the last client was asked to go */
const leaveMs = 4_000;

export const gatewaySchema = gatewayFields.superRefine(({ DRAIN_WINDOW_MS, STOP_TIMEOUT_MS }, context) => {
  if (DRAIN_WINDOW_MS + leaveMs > STOP_TIMEOUT_MS) {
    context.addIssue({
      code: 'custom',
      path: ['DRAIN_WINDOW_MS'],
      message: `with ${DRAIN_WINDOW_MS} ms and ${leaveMs} ms for goodbyes a gateway would not stop within STOP_TIMEOUT_MS (${STOP_TIMEOUT_MS} ms)`,
    });
  }
});

export const migrateSchema = z.object({
  DATABASE_URL: common.DATABASE_URL,
  PLANK_SAMPLE: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true')
    .describe(
      '`true`: makes the sample table `items` of the quick start, once, where nothing else is called so. The default where Plank brings the database along',
    ),
});

/** What the doctor must know of a deployment, by the same names. */
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
  .extend(gatewayFields.pick({ MAX_CONNECTIONS: true }).shape);

export type ListenerConfig = Readonly<z.infer<typeof listenerSchema>>;
export type GatewayConfig = Readonly<z.infer<typeof gatewaySchema>>;

export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** Throws a ConfigError that names every variable that is wrong. An empty variable counts as unset. */
export function readConfig<S extends z.ZodObject>(
  schema: S,
  env: NodeJS.ProcessEnv = process.env,
): Readonly<z.infer<S>> {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''));
  const parsed = schema.safeParse(given);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => {
      const name = issue.path.join('.');
      return given[name] === undefined && issue.code !== 'custom' ? `${name} is not set` : `${name}: ${issue.message}`;
    });
    throw new ConfigError(`configuration: ${problems.join('; ')}`);
  }
  return Object.freeze(parsed.data);
}
