// No change waits for the safety check, whatever the load: writers cross the switch between ringing and polling in both
// directions, connections of the doorbell are ended, and NOTIFY is forbidden.

import { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sleep } from '#shared/waiting.ts';
import { admin } from '../support/servers/admin.ts';
import { type Commit, DoorbellRig, pidOf, safetyIntervalMs } from '../support/stage/doorbell-rig.ts';
import { until } from '../support/wait.ts';

/** far below the safety interval, and far above the delays of a busy machine */
const lateMs = 1_500;

let rig: DoorbellRig;

async function startRig(env?: Record<string, string>): Promise<Client[]> {
  rig = await DoorbellRig.start(env);
  return Promise.all(Array.from({ length: 16 }, () => rig.client()));
}

const report = (latencies: readonly number[]) => {
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!;
  return `${latencies.length} commits, to publication p50 ${at(0.5).toFixed(1)}, p99 ${at(0.99).toFixed(1)}, max ${at(1).toFixed(1)} ms`;
};

/** Writes at a rate, over all connections in turn, for `ms`. */
async function trickle(clients: readonly Client[], perSecond: number, ms: number): Promise<void> {
  const end = performance.now() + ms;
  await Promise.all(
    clients.map(async (client) => {
      const pause = () => (Math.random() * 2 * 1_000 * clients.length) / perSecond;
      for (await sleep(pause()); performance.now() < end; await sleep(pause())) await rig.write(client);
    }),
  );
}

/** Writes as fast as possible, until `most` transactions have committed, `ms` are over, or `enough` holds. */
async function burst(clients: readonly Client[], most: number, ms: number, enough = () => false): Promise<void> {
  const end = performance.now() + ms;
  let left = most;
  await Promise.all(
    clients.map(async (client) => {
      while (left-- > 0 && performance.now() < end && !enough()) await rig.write(client);
    }),
  );
}

const ringing = (deadlineMs = 10_000) => until('the listener rings', () => rig.mode === 'ringing', deadlineMs);

afterEach(async () => {
  await rig?.stop();
});

describe('WAKE=auto', () => {
  let clients: Client[];

  beforeEach(async () => {
    clients = await startRig();
    await rig.hearAnnouncements();
    await ringing();
  });

  test('the safety check finds no change while the load comes and goes', async () => {
    await trickle(clients, 20, 2_000);
    await burst(clients, 3_000, 4_000);
    await trickle(clients, 20, 2_000);
    for (const perSecond of [500, 1_500, 700, 1_200, 1_000]) await trickle(clients, perSecond, 1_000);
    // no later transaction would wake the listener in place of the last one of a burst
    for (let i = 0; i < 30; i++) {
      await burst(clients.slice(0, 1 + Math.floor(Math.random() * clients.length)), 500, Math.random() * 150);
      await rig.allPublished();
      await sleep(Math.random() * 100);
    }
    // transactions that began while it polled end while it wants to ring; the last of them lets it
    for (let i = 0; i < 12; i++) {
      await ringing();
      await burst(clients, 20_000, 10_000, () => rig.isSilent);
      await Promise.all(clients.map((client) => rig.write(client, () => sleep(Math.random() * 600))));
      await rig.allPublished();
    }
    await trickle(clients, 20, 1_000);
    await rig.allPublished();
    await rig.allAnnounced();

    const latencies = rig.latencies();
    const silentIn = (commit: Commit) =>
      rig.silent.some(({ from, to }) => commit.begunAt > from && commit.endedAt < to);
    const ringingIn = (commit: Commit) =>
      rig.ringing.some(({ from, to }) => commit.begunAt > from && commit.endedAt < to);
    const all = [...rig.commits.values()];
    const silent = all.filter(silentIn).length;
    const announced = all.filter(ringingIn).length;
    const switches = rig.modes.filter(({ mode }) => mode === 'polling').length;
    console.log(`${report(latencies)}; ${announced} while ringing, ${silent} while polling, ${switches} bursts`);
    expect(all.length).toBeGreaterThan(10_000);
    expect(switches).toBeGreaterThanOrEqual(12);
    expect(silent).toBeGreaterThan(all.length / 5);
    expect(announced).toBeGreaterThan(50);
    expect(latencies.at(-1)).toBeLessThan(lateMs);
    expect(await rig.metric('safetyFinds')).toBe(0);
    // each transaction announces at most once: always while ringing, never while polling
    for (const client of clients) {
      const pid = pidOf(client);
      const own = all.filter((commit) => commit.pid === pid);
      const announced = rig.announced.get(pid) ?? 0;
      expect(announced).toBeGreaterThanOrEqual(own.filter(ringingIn).length);
      expect(announced).toBeLessThanOrEqual(own.length - own.filter(silentIn).length);
    }
  });

  test('the listener polls for a long transaction that did not announce itself, and other changes flow', async () => {
    const long = clients.pop()!;
    const held = Promise.withResolvers<void>();
    // the transaction begins in the middle of a burst, so that it holds the shared lock
    let holds = false;
    const bursting = burst(clients, 100_000, 20_000, () => holds);
    await until('nobody rings', () => rig.isSilent, 10_000);
    const writing = rig.write(long, () => held.promise);
    await until(
      'the transaction holds the lock',
      async () =>
        (
          await admin(
            rig.url,
            `select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and pid = ${pidOf(long)}`,
          )
        ).length > 0,
      5_000,
    );
    holds = true;
    await bursting;
    await until('the listener wants to ring', () => rig.mode === 'returning', 10_000);
    const modes = rig.modes.length;
    await trickle(clients, 20, safetyIntervalMs + 500);
    expect(rig.modes.slice(modes).map(({ mode }) => mode)).not.toContain('ringing');
    // announcements must not slow a burst down: the listener withdraws its request for the lock
    await burst(clients, 100_000, 5_000, () => rig.mode === 'polling');
    expect(rig.mode).toBe('polling');
    await rig.allPublished();
    held.resolve();
    await writing;
    await rig.allPublished();
    await ringing();
    expect(rig.latencies().at(-1)).toBeLessThan(lateMs);
    expect(await rig.metric('safetyFinds')).toBe(0);
  });

  test.each(['bell', 'lock'])('the doorbell recovers when its %s connection is ended', async (name) => {
    for (let i = 0; i < 8; i++) {
      const ended = await admin(
        rig.url,
        `select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'plank listener (${name})' and datname = current_database()`,
      );
      expect(ended).toEqual([{ pg_terminate_backend: true }]);
      await burst(clients, 1 + Math.floor(Math.random() * 200), 200);
      await rig.write(clients[0]!);
      await rig.allPublished();
      await until(
        'it is back',
        async () => (await connections(name)) === 1 && rig.mode === 'ringing' && (await rig.metric('ringing')) === 1,
        10_000,
      );
    }
    console.log(report(rig.latencies()));
    expect(rig.latencies().at(-1)).toBeLessThan(safetyIntervalMs);
    // the doorbell rings, and the listener receives it
    const rings = await rig.metric('rings');
    await rig.write(clients[0]!);
    await until('the listener receives a ring', async () => (await rig.metric('rings')) > rings, lateMs);
  });

  test('the doorbell gets the lock although the session of a former leader holds it', async () => {
    await admin(
      rig.url,
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'plank listener (lock)'",
    );
    const former = new Client({ connectionString: rig.url });
    former.on('error', () => {});
    await former.connect();
    try {
      await former.query('select pg_advisory_lock(1886151019, 1)');
    } catch {
      // the listener was faster, and has ended this session already
    }
    await burst(clients, 200, 1_000);
    await rig.allPublished();
    await ringing();
    await rig.write(clients[0]!);
    await rig.allPublished();
    expect(rig.latencies().at(-1)).toBeLessThan(lateMs);
    await former.end().catch(() => {});
  });
});

describe('WAKE=poll', () => {
  test('polling finds every change without an announcement, even one of a two-phase commit', async () => {
    const clients = await startRig({ WAKE: 'poll' });
    await rig.hearAnnouncements();
    await trickle(clients, 100, 1_000);
    await burst(clients, 1_000, 2_000);
    await admin(rig.url, "begin; insert into t values (-1, 'prepared'); prepare transaction 'one'");
    await trickle(clients, 20, 500);
    expect(rig.commits.has(-1)).toBe(false);
    await admin(rig.url, "commit prepared 'one'");
    await until('the prepared one is published', () => rig.commits.has(-1), lateMs);
    await rig.allPublished();
    await rig.allAnnounced();
    expect(rig.announced.size).toBe(0);
    expect(rig.latencies().at(-1)).toBeLessThan(lateMs);
    expect(await rig.metric('safetyFinds')).toBe(0);
  });
});

async function connections(name: string): Promise<number> {
  return (
    await admin(
      rig.url,
      `select from pg_stat_activity where application_name = 'plank listener (${name})' and datname = current_database()`,
    )
  ).length;
}
