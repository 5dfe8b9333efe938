// Configuration: all problems are reported at once, by name; the tables of docs/configuration.md are what the schemas say.

import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { z } from 'zod';
import {
  ConfigError,
  gatewayProcessSchema,
  gatewaySchema,
  listenerSchema,
  migrateSchema,
  misspelt,
  readConfig,
} from '#shared/process/config.ts';

const DATABASE_URL = 'postgres://u:p@localhost:5432/d';

function problems(schema: z.ZodObject, env: NodeJS.ProcessEnv): string {
  try {
    readConfig(schema, env);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  return '';
}

describe('readConfig', () => {
  test('the configuration requires nothing but the database', () => {
    const listener = readConfig(listenerSchema, { DATABASE_URL });
    expect(listener).toMatchObject({
      DATABASE_URL,
      PLANK_LOG_NAME: 'plank',
      NODE_NAME: hostname(),
      LISTENER_PORT: 8001,
      WAKE: 'auto',
      SAFETY_INTERVAL_MS: 3_000,
      RETENTION_MS: 3_600_000,
      STREAM_BYTES: 67_108_864,
    });
    expect(listener).not.toHaveProperty('REDIS_URL');
    expect(readConfig(gatewaySchema, { DATABASE_URL })).toMatchObject({
      PORT: 8_000,
      CORS_ORIGINS: ['*'],
      POOL_SIZE: 10,
    });
  });

  test('each setting is read as its type', () => {
    const env = { DATABASE_URL, PORT: '0', CORS_ORIGINS: ' https://a.example, https://b.example ,', UNRELATED: 'x' };
    const config = readConfig(gatewaySchema, env);
    expect(config.PORT).toBe(0);
    expect(config.CORS_ORIGINS).toEqual(['https://a.example', 'https://b.example']);
    expect(config).not.toHaveProperty('UNRELATED');
    expect(Object.isFrozen(config)).toBe(true);
  });

  test('an empty variable counts as not set', () => {
    expect(readConfig(listenerSchema, { DATABASE_URL, REDIS_URL: '', LISTENER_PORT: '' }).LISTENER_PORT).toBe(8001);
    expect(problems(listenerSchema, { DATABASE_URL: '' })).toContain('DATABASE_URL is not set');
  });

  test('the error names every wrong setting at once', () => {
    const wrong = {
      DATABASE_URL: 'mysql://localhost/d',
      REDIS_URL: 'localhost:6379',
      PLANK_LOG_NAME: 'a b',
      NODE_NAME: '{}',
      HOST: 'http://localhost',
      LOG_LEVEL: 'loud',
      STOP_TIMEOUT_MS: '0',
      LISTENER_PORT: '70000',
      WAKE: 'never',
      POLL_INTERVAL_MS: 'soon',
      SAFETY_INTERVAL_MS: '1.5',
      LEASE_MS: '499',
      CANARY_INTERVAL_MS: '-1',
      RETENTION_MS: '-1',
      RETENTION_BYTES: '10',
      STREAM_BYTES: '64MB',
    };
    expect(Object.keys(wrong).sort()).toEqual(Object.keys(listenerSchema.shape).sort());
    const message = problems(listenerSchema, wrong);
    for (const name of Object.keys(wrong)) expect(message).toContain(`${name} must`);
    expect(message).not.toContain('\n');
    expect(problems(gatewaySchema, { PORT: 'x', POOL_SIZE: '1', STOP_TIMEOUT_MS: '8000' })).toMatch(
      /^configuration: DATABASE_URL is not set: [^;]+; PORT must [^;]+; POOL_SIZE must [^;]+; DRAIN_WINDOW_MS must [^;]+$/,
    );
  });

  test('the error names settings that do not fit each other', () => {
    const message = problems(gatewaySchema, { DATABASE_URL, STOP_TIMEOUT_MS: '8000' });
    expect(message).toMatch(/DRAIN_WINDOW_MS must be at least 4000 below STOP_TIMEOUT_MS \(8000\), but is 5000/);
    expect(problems(gatewaySchema, { DATABASE_URL, DRAIN_WINDOW_MS: '6001' })).toContain('STOP_TIMEOUT_MS');
    expect(readConfig(gatewaySchema, { DATABASE_URL, DRAIN_WINDOW_MS: '6000' }).DRAIN_WINDOW_MS).toBe(6_000);
  });

  const AUTH_JWT_SECRET = 'hunter2'.repeat(5);
  const AUTH_JWKS_URL = 'https://a.example/keys';
  test.each([
    [{ AUTH: 'jwt' }, 'AUTH=jwt needs exactly one of AUTH_JWT_SECRET, AUTH_PUBLIC_KEY, AUTH_JWKS_URL, but none is set'],
    [{ AUTH: 'jwt', AUTH_JWT_SECRET, AUTH_JWKS_URL }, 'but AUTH_JWT_SECRET, AUTH_JWKS_URL is set'],
    [{ AUTH_JWT_SECRET }, 'AUTH_JWT_SECRET is set, but AUTH is off: set AUTH=jwt, or remove it'],
    [{ AUTH: 'off', AUTH_PUBLIC_KEY: 'hunter2' }, 'AUTH_PUBLIC_KEY is set, but AUTH is off'],
    [{ AUTH: 'jwt', AUTH_JWT_SECRET: 'hunter2'.repeat(4) }, 'AUTH_JWT_SECRET must be at least 32 bytes'],
    [{ AUTH: 'jwt', AUTH_JWKS_URL: 'https://me:hunter2@a.example' }, 'AUTH_JWKS_URL must be a URL as https://'],
    [{ AUTH: 'jwt', AUTH_JWKS_URL: 'file:///hunter2' }, 'AUTH_JWKS_URL must be a URL as https://'],
    [{ AUTH: 'none' }, 'AUTH must be one of off, jwt'],
  ])('the error names keys of tokens that do not fit: %j', (env, expected) => {
    const message = problems(gatewaySchema, { DATABASE_URL, ...env });
    expect(message).toContain(expected);
    expect(message).not.toContain('hunter2');
    expect(message.split(';')).toHaveLength(1);
  });

  test('a gateway that is a process of its own is told whether clients need tokens', () => {
    const env = { DATABASE_URL, REDIS_URL: 'redis://localhost' };
    expect(problems(gatewayProcessSchema, env)).toContain('AUTH is not set');
    expect(problems(gatewayProcessSchema, { ...env, AUTH: ' ' })).toContain('AUTH is not set');
    expect(readConfig(gatewayProcessSchema, { ...env, AUTH: 'off' }).AUTH).toBe('off');
    expect(readConfig(gatewayProcessSchema, { ...env, AUTH: 'jwt', AUTH_JWT_SECRET }).AUTH).toBe('jwt');
    expect(readConfig(gatewaySchema, { DATABASE_URL }).AUTH).toBe('off');
  });

  test.each([
    ['RETENTION_MS', '604800000'],
    ['LEASE_MS', '500'],
    ['LISTENER_PORT', '65535'],
  ])('the schema accepts %s=%s', (name, value) => {
    expect(readConfig(listenerSchema, { DATABASE_URL, [name]: value })).toHaveProperty(name, Number(value));
  });

  test('the error does not repeat a value that may be secret', () => {
    const message = problems(listenerSchema, {
      DATABASE_URL: 'postgre://user:hunter2@host/d',
      REDIS_URL: 'http://:hunter2@h',
    });
    expect(message).toContain('DATABASE_URL');
    expect(message).not.toContain('hunter2');
  });
});

const whole = 'must be a whole number';
const urlMessage = 'DATABASE_URL must be a URL as postgres://user:password@host:port/database';

describe('wrong values', () => {
  test.each([
    ...['ten', 'NaN', '-1', '1.5', '1e3', '0x10', '10s', '10 000', '9'.repeat(30), 'Infinity', '٣'].flatMap((value) => [
      ['STOP_TIMEOUT_MS', value, `${whole} of milliseconds, without a unit, from 1 to 86400000`],
      ['PORT', value, `${whole}, from 0 to 65535`],
    ]),
    ['PORT', '65536', `${whole}, from 0 to 65535`],
    ['RING_BYTES', '64MB', `${whole} of bytes, without a unit, 1024 or more`],
    ['RING_BYTES', '1023', `${whole} of bytes, without a unit, 1024 or more`],
    ['LOG_LEVEL', 'INFO', 'must be one of fatal, error,'],
    ['HOST', 'http://localhost', 'must be an address or a name of this machine'],
    ['HOST', '0.0.0.0/0', 'must be an address or a name of this machine'],
    ['HOST', 'localhost:8000', 'must be an address or a name of this machine'],
    ['HOST', '0.0.0.0:8000', 'must be an address or a name of this machine'],
    ['HOST', '256.0.0.1', 'must be an address or a name of this machine'],
    ['HOST', '[::1]', 'must be an address or a name of this machine'],
    ['HOST', '8000', 'must be an address or a name of this machine'],
    ['PLANK_LOG_NAME', 'a b', 'must be 1 to 40 letters'],
    ...[
      'example.com',
      'https://example.com/',
      'https://example.com/app',
      'https://example.com?a',
      'https://user@example.com',
      'https://*.example.com',
      'https://a.example https://b.example',
      '*, https://a.example',
      'https://a.example, b.example',
      'https://',
      'https:///',
      'https://a.example:port',
      '//example.com',
      'null',
      ',',
    ].map((value) => ['CORS_ORIGINS', value, 'must be origins, separated by commas, each as https://example.com or']),
  ])('the schema refuses %s=%s', (name, value, allowed) => {
    const message = problems(gatewaySchema, { DATABASE_URL, [name]: value });
    expect(message).toContain(`configuration: ${name} ${allowed}`);
    expect(message).toContain(`, but is ${JSON.stringify(value.slice(0, 60))}`);
    expect(message).not.toMatch(/expected|received|invalid|\n/i);
  });

  test.each([
    ['DATABASE_URL', 'localhost:5432/hunter2', urlMessage],
    ['DATABASE_URL', 'mysql://u:hunter2@h/d', urlMessage],
    ['DATABASE_URL', 'postgres://u:hunter2#@h:x/d', urlMessage],
    ['REDIS_URL', 'localhost:6379?hunter2', 'REDIS_URL must be a URL as redis://host:port'],
    ['REDIS_TAIL_URL', 'http://:hunter2@h', 'REDIS_TAIL_URL must be a URL as redis://host:port'],
    ['OPS_TOKEN', 'hunter2', 'OPS_TOKEN must be at least 16 characters'],
  ])('the error for %s does not repeat the value, which may be secret', (name, value, expected) => {
    const message = problems(gatewaySchema, { DATABASE_URL, [name]: value });
    expect(message).toContain(expected);
    expect(message).not.toContain('hunter2');
  });
});

describe('right values', () => {
  test.each([
    ['CORS_ORIGINS', '*', ['*']],
    ['CORS_ORIGINS', 'https://Example.com:443', ['https://example.com']],
    ['CORS_ORIGINS', 'http://localhost:3000,http://[::1]:3000', ['http://localhost:3000', 'http://[::1]:3000']],
    [
      'CORS_ORIGINS',
      'capacitor://localhost, chrome-extension://abcdef',
      ['capacitor://localhost', 'chrome-extension://abcdef'],
    ],
    ['PORT', ' 8001\n', 8_001],
    ['OPS_TOKEN', '0123456789abcdef\n', '0123456789abcdef'],
    ['PORT', '  ', 8_000],
    ['HOST', '::', '::'],
    ['HOST', 'gateway-1.internal', 'gateway-1.internal'],
    ['HOST', 'fd00::2', 'fd00::2'],
    ['DATABASE_URL', 'postgresql:///d?host=/var/run/postgresql', 'postgresql:///d?host=/var/run/postgresql'],
    ['DATABASE_URL', 'postgres://u:p@/d?host=/run', 'postgres://u:p@/d?host=/run'],
    ['DATABASE_URL', `${DATABASE_URL}\n`, DATABASE_URL],
  ])('the schema accepts %s=%j', (name, value, expected) => {
    expect(readConfig(gatewaySchema, { DATABASE_URL, [name]: value })[name as 'PORT']).toEqual(expected);
  });

  test('a misspelt variable is named, and no other of the environment', () => {
    const others = {
      PATH: '',
      HOME: '',
      HOSTNAME: '',
      HOSTTYPE: '',
      TERM: '',
      PLANK_TEST_REDIS_URL: '',
      PLANK_GATEWAY_PORT_8000_TCP: '',
    };
    expect(misspelt({ ...others, PLANK_DATABASE_URL: '', DATABASE_URL, npm_config_port: '' })).toEqual([]);
    expect(misspelt({ LOG_LEVLE: '', CORS_ORIGIN: '', plank_sample: '', PLANK_POOL: '', DATABSE_URL: '' })).toEqual([
      'LOG_LEVLE is not a setting of Plank; did you mean LOG_LEVEL?',
      'CORS_ORIGIN is not a setting of Plank; did you mean CORS_ORIGINS?',
      'plank_sample is not a setting of Plank; did you mean PLANK_SAMPLE?',
      'PLANK_POOL is not a setting of Plank',
      'DATABSE_URL is not a setting of Plank; did you mean DATABASE_URL?',
    ]);
  });
});

describe('the tables of docs/configuration.md', () => {
  test('docs/configuration.md has a row for each setting of the schemas', async () => {
    const text = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8');
    const tables = [...text.matchAll(/<!-- settings: [\w ]+ -->\n(.*?)\n<!-- \/settings -->/gs)].map((match) =>
      match[1]!.split('\n'),
    );
    const rows = tables.flatMap((lines) => lines.slice(2));
    const expected = rowsOfSettings();
    expect(rows.toSorted(), `the two tables together should have:\n\n${expected.join('\n')}\n`).toEqual(
      expected.toSorted(),
    );
    expect(tables.map((lines) => lines.slice(0, 2))).toEqual([head, head]);
    expect(tables[0]).toHaveLength(head.length + 10);
  });
});

const line = (cells: string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
const head = [line(['variable', 'default', 'used by', 'what it is']), line(['---', '---', '---', '---'])];

/** Of each variable: name, default, who uses it, what it is. */
function rowsOfSettings(): string[] {
  const shapes = { migrate: migrateSchema.shape, listener: listenerSchema.shape, gateway: gatewaySchema.shape };
  const names = [...new Set(Object.values(shapes).flatMap((shape) => Object.keys(shape)))];
  return names.map((name) => {
    const users = Object.entries(shapes).flatMap(([user, shape]) => (name in shape ? [user] : []));
    const field = Object.values(shapes)
      .map((shape) => (shape as Record<string, z.ZodType>)[name])
      .find((found) => found !== undefined)!;
    return line([`\`${name}\``, defaultOf(name, field), users.join(', '), field.description ?? '']);
  });
}

function defaultOf(name: string, field: z.ZodType): string {
  const given = field.safeParse(undefined);
  if (!given.success) return 'required';
  const value = given.data as string | number | string[] | undefined;
  // each machine has a name of its own
  if (name === 'NODE_NAME' || value === undefined) return '';
  return `\`${String(value)}\``;
}
