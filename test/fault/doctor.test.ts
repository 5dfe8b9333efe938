// What the doctor reports of a healthy deployment, and of deployments that are broken in one way each.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { verdict } from '#deploy/doctor/clock.ts';
import type { Finding } from '#deploy/doctor/finding.ts';
import { Cluster } from '#deploy/local/cluster.ts';
import { startNginx } from '#deploy/local/nginx.ts';
import { startPostgres } from '#deploy/local/postgres.ts';
import { admin } from '../support/servers/admin.ts';
import { startPgBouncer } from '../support/servers/pgbouncer.ts';
import { startVersion } from '../support/servers/postgres-versions.ts';
import { until } from '../support/wait.ts';

const program = join(import.meta.dirname, '../../deploy/doctor/main.ts');
const nginxConf = join(import.meta.dirname, '../../nginx.conf');

interface Report {
  status: number;
  findings: (Finding & { part: string })[];
  output: string;
}

interface DoctorOptions {
  args?: string[];
  env?: Record<string, string>;
  /** a command in front of the doctor's */
  prefix?: string[];
}

let cluster: Cluster;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'plank-doctor-'));
  cluster = await Cluster.start({ gateways: 1, env: { PING_INTERVAL_MS: '2000' } });
});
afterAll(async () => {
  await cluster?.stop();
  await rm(folder, { recursive: true, force: true });
});

function doctor({ args = [], env = {}, prefix = [] }: DoctorOptions = {}): Promise<Report> {
  const [command, ...rest] = [...prefix, process.execPath, program, '--json', ...args];
  const own = { PATH: process.env.PATH, DATABASE_URL: cluster.databaseUrl, REDIS_URL: cluster.redisUrl, ...env };
  return new Promise((resolve) => {
    execFile(command!, rest, { env: own, timeout: 60_000 }, (error, stdout, stderr) => {
      const status = error ? Number(error.code ?? -1) : 0;
      resolve({ status, findings: stdout ? (JSON.parse(stdout) as Report['findings']) : [], output: stderr });
    });
  });
}

/** Its faults and warnings, without those about this machine. */
const troubles = ({ findings }: Report) =>
  findings
    .filter(({ level, part }) => (level === 'fault' || level === 'warning') && part !== 'host')
    .map(({ level, says }) => `${level}: ${says}`);

async function withNginx(change: (conf: string) => string, upstream: string, work: (url: string) => Promise<void>) {
  const conf = await readFile(nginxConf, 'utf8');
  const changed = change(conf);
  const confFile = join(folder, `nginx-${Math.random().toString(36).slice(2)}.conf`);
  await writeFile(confFile, changed);
  const nginx = await startNginx({ confFile, upstreams: [upstream] });
  try {
    await work(nginx.url);
  } finally {
    await nginx.stop();
  }
}

const gateway = () => new URL(cluster.gateways[0]!.url).host;
const quick = (url: string) => doctor({ args: ['--quick', '--url', url] });

describe('the doctor', () => {
  test('the doctor finds nothing wrong where nothing is', async () => {
    const report = await doctor({ args: ['--url', cluster.url] });
    expect(troubles(report)).toEqual([]);
    expect(report.status).toBe(0);
    const well = report.findings.filter(({ level }) => level === 'ok').map(({ says }) => says);
    for (const words of [
      /^PostgreSQL \S+ answers$/,
      /^connections reach Postgres itself, and NOTIFY arrives$/,
      /^commits are flushed/,
      /^captured: items$/,
      /^no change waits/,
      /^listener-1 leads \(term 1\)$/,
      /^(Redis|Valkey) \S+ answers$/,
      /^maxmemory-policy is noeviction$/,
      /^pages for operators are not reachable here$/,
      /^event streams arrive/,
      /^a WebSocket opens in .* at gateway-1$/,
      /^a silent connection is kept from ping to ping/,
    ])
      expect(well, String(words)).toContainEqual(expect.stringMatching(words));
  });

  test('the doctor says in one line what it needs', async () => {
    const report = await doctor({ env: { DATABASE_URL: '' } });
    expect(report).toMatchObject({
      status: 2,
      output: expect.stringMatching(/^plank doctor: configuration: DATABASE_URL is not set: .+\n$/),
    });
    expect(await doctor({ args: ['--url', 'localhost'] })).toMatchObject({
      status: 2,
      output: expect.stringContaining('--url must be'),
    });
  });

  test('the doctor names what cannot be reached', async () => {
    const nowhere = '127.0.0.1:2';
    const report = await doctor({
      args: ['--url', `http://${nowhere}`],
      env: { DATABASE_URL: `postgres://postgres@${nowhere}/postgres`, REDIS_URL: `redis://${nowhere}` },
    });
    expect(troubles(report)).toEqual([
      expect.stringMatching(/^fault: Postgres cannot be reached: connect ECONNREFUSED/),
      expect.stringMatching(/^fault: Redis does not answer: connect ECONNREFUSED/),
      expect.stringMatching(/^fault: http:\/\/127.0.0.1:2 does not answer: connect ECONNREFUSED/),
    ]);
    expect(report.status).toBe(1);
  });
});

describe('the doctor on a broken database', () => {
  test('the doctor reports a PostgreSQL that is too old', async () => {
    const old = await startVersion(13);
    try {
      const report = await doctor({ env: { DATABASE_URL: old.url } });
      expect(troubles(report)[0]).toMatch(/^fault: PostgreSQL 13\.\d+ is too old$/);
    } finally {
      await old.stop();
    }
  });

  test('the doctor reports a database that was not migrated', async () => {
    await admin(cluster.databaseUrl, 'create database empty');
    const url = new URL(cluster.databaseUrl);
    url.pathname = '/empty';
    expect(troubles(await doctor({ env: { DATABASE_URL: url.href } }))).toEqual([
      'fault: the database has no schema "plank" of this version',
    ]);
  });

  test('the doctor reports a pooler that keeps NOTIFY away', async () => {
    const pooler = await startPgBouncer(cluster.databaseUrl, 'transaction');
    try {
      const found = troubles(await doctor({ env: { DATABASE_URL: pooler.url } }));

      expect(found).toContain(
        'fault: a pooler stands before Postgres that is not in session mode: NOTIFY does not arrive',
      );
    } finally {
      await pooler.stop();
    }
  });

  test('the doctor names triggers that are disabled or missing', async () => {
    // as where no event trigger follows DDL, because the role that migrated is no superuser
    await admin(
      cluster.databaseUrl,
      `alter event trigger plank_ddl disable; alter table items disable trigger plank_update;
       drop trigger plank_delete on items; alter event trigger plank_ddl enable`,
    );
    try {
      expect(troubles(await doctor())).toEqual([
        'fault: items: trigger plank_delete is missing on public.items',
        'fault: items: trigger plank_update is disabled on public.items',
      ]);
    } finally {
      await admin(cluster.databaseUrl, "select plank.attach('items'); alter table items enable trigger plank_update");
    }
    expect(troubles(await doctor())).toEqual([]);
  });

  test('the doctor names settings that make commits unsafe', async () => {
    const settings = { synchronous_commit: 'off', full_page_writes: 'off', autovacuum: 'off' };
    const unsafe = await startPostgres({ dataDir: join(folder, 'unsafe'), fsync: false, settings });
    try {
      expect(troubles(await doctor({ env: { DATABASE_URL: unsafe.url, REDIS_URL: '' } }))).toEqual([
        expect.stringMatching(/^fault: fsync is off/),
        expect.stringMatching(/^fault: full_page_writes is off/),
        expect.stringMatching(/^warning: autovacuum is off/),
        'fault: the database has no schema "plank" of this version',
      ]);
    } finally {
      await unsafe.stop();
    }
  });

  test('the doctor names roles for which triggers are off', async () => {
    await admin(
      cluster.databaseUrl,
      'create role importer; alter role importer set session_replication_role = replica',
    );
    try {
      expect(troubles(await doctor())).toEqual([
        'fault: triggers are off (session_replication_role = replica) for importer',
      ]);
    } finally {
      await admin(cluster.databaseUrl, 'drop role importer');
    }
  });

  test('the doctor reports that no listener leads, and how long changes have been waiting', async () => {
    await cluster.listeners[0]!.stop();
    try {
      await admin(cluster.databaseUrl, "insert into items (name, value) values ('waits', 1)");
      expect(troubles(await doctor())).toContainEqual(expect.stringMatching(/^fault: no listener leads/));
      await until(
        'the doctor reports the waiting change',
        async () => troubles(await doctor()).some((says) => says.startsWith('fault: 1 change waits to be drained')),
        20_000,
      );
    } finally {
      await cluster.listeners[0]!.start();
    }
    await until('the doctor finds nothing wrong again', async () => troubles(await doctor()).length === 0, 10_000);
  });
});

describe('the doctor on a broken Redis', () => {
  let redis: Redis;
  beforeAll(() => {
    redis = new Redis(cluster.redisUrl);
  });
  afterAll(() => redis.disconnect());

  test('the doctor reports a Redis that would evict the stream', async () => {
    await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await redis.config('SET', 'maxmemory', '20mb');
    try {
      expect(troubles(await doctor())).toEqual([
        'fault: maxmemory-policy is allkeys-lru: a full Redis would evict the stream',
        'warning: maxmemory is 20 MiB, but the stream alone may take 64 MiB',
      ]);
    } finally {
      await redis.config('SET', 'maxmemory-policy', 'noeviction');
      await redis.config('SET', 'maxmemory', '0');
    }
  });

  test('the doctor reports a stream of another history, or none', async () => {
    const named = { env: { PLANK_LOG_NAME: 'another' } };
    expect(troubles(await doctor(named))).toEqual(['warning: there is no stream of the log "another"']);
    await redis.hset('{another}:meta', { epoch: 1, last: 1 });
    expect(troubles(await doctor(named))).toEqual([
      'warning: the stream holds another history (of another database, or an earlier state of this one)',
    ]);
  });
});

describe('the doctor on what clients reach', () => {
  test("the doctor reports operators' pages that everybody can open", async () => {
    const report = await quick(cluster.gateways[0]!.url);
    expect(troubles(report)).toEqual([
      expect.stringMatching(/^warning: everybody who reaches \S+ can read \/metrics$/),
    ]);
    expect(report.status).toBe(0);
  });

  test('the doctor reports a balancer without a gateway', () =>
    withNginx(
      (conf) => conf,
      '127.0.0.1:1',
      async (url) => {
        expect(troubles(await quick(url))).toEqual([
          expect.stringMatching(/^fault: .*\/health answers 502: a balancer runs, but no gateway behind it$/),
        ]);
      },
    ));

  test('the doctor reports a balancer that does not pass the upgrade on', () =>
    withNginx(
      (conf) => conf.replace(/^ *proxy_set_header Upgrade .*\n/m, ''),
      gateway(),
      async (url) => {
        expect(troubles(await quick(url))).toEqual([
          expect.stringMatching(/^fault: the WebSocket handshake is answered with 4\d\d$/),
        ]);
      },
    ));

  test('the doctor reports a balancer that cuts silent connections before their ping', () =>
    withNginx(
      (conf) => conf.replace(/proxy_read_timeout \d+s/, 'proxy_read_timeout 1s'),
      gateway(),
      async (url) => {
        expect(troubles(await doctor({ args: ['--url', url] }))).toEqual([
          expect.stringMatching(/^fault: a silent connection was cut after (1 s|\d+ ms), before the next ping/),
        ]);
      },
    ));

  test('the doctor reports a balancer that holds event streams back', () =>
    withNginx(
      (conf) => conf.replaceAll('proxy_buffering off;', 'proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;'),
      gateway(),
      async (url) => {
        expect(troubles(await quick(url))).toEqual(['fault: nothing of an event stream arrives within 5 s']);
      },
    ));
});

describe('the doctor on a machine', () => {
  test('the doctor reports a limit of open files that is too low', async () => {
    const report = await doctor({ prefix: ['sh', '-c', 'ulimit -n 1024 && exec "$@"', 'sh'] });
    expect(report.findings.filter(({ part, level }) => part === 'host' && level === 'warning')).toEqual([
      expect.objectContaining({
        says: 'a process may have 1024 open files here, but MAX_CONNECTIONS is 50000',
      }),
    ]);
  });

  test.each([
    [0, 1, 'ok'],
    [90, 10, 'ok'],
    [-5_000, 3, 'warning'],
    [250, 100, 'warning'],
    // half of a slow round trip may explain the whole difference
    [250, 400, 'ok'],
  ] as const)(
    'the doctor rates a clock that is %i ms off, with an answer after %i ms, as %s',
    (offMs, tripMs, level) => {
      expect(verdict('Redis', offMs, tripMs).level).toBe(level);
    },
  );
});
