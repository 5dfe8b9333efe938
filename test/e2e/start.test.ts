// `npm start` as a user runs it: what it prints works, Ctrl-C ends all processes in order, the data stays until --fresh.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Child, freePort, startChild } from '#deploy/local/process.ts';
import { until } from '../support/wait.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../..');
const startMs = 30_000;
const stopMs = 15_000;

let folder: string;
let started: Started[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'plank-start-'));
});

afterEach(async () => {
  await Promise.all(started.map(({ child }) => child.kill()));
  started = [];
});

afterAll(() => rm(folder, { recursive: true, force: true }));

interface Started {
  child: Child;
  port: number;
  url: string;
  output: () => string;
}

/** Ignores the shell's DATABASE_URL and REDIS_URL: empty variables count as not set. */
async function start({
  port,
  args = [],
  command = ['npm', 'start', '--'],
}: {
  port?: number;
  args?: string[];
  command?: string[];
} = {}): Promise<Started> {
  const chosen = port ?? (await freePort());
  const child = await startChild({
    name: 'npm start',
    command: command[0]!,
    args: [...command.slice(1), '--data', join(folder, 'data'), ...args],
    logFile: join(folder, 'start.log'),
    cwd: root,
    env: { ...process.env, DATABASE_URL: '', REDIS_URL: '', PORT: String(chosen) },
  });
  const one = { child, port: chosen, url: `http://localhost:${chosen}`, output: () => child.logTail(1_000) };
  started.push(one);
  return one;
}

async function startUntilReady(options: Parameters<typeof start>[0] = {}): Promise<Started> {
  const one = await start(options);
  await one.child.waitUntil(() => one.output().includes('Ctrl-C stops it.'), startMs);
  return one;
}

/** What a terminal does: SIGINT to all in the foreground. */
async function ctrlC({ child }: Started): Promise<void> {
  process.kill(-child.pid, 'SIGINT');
  await until('npm has ended', () => !child.running, stopMs);
  await until('all that it started has ended', () => !isThere(-child.pid), stopMs);
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function postgresPid(): Promise<number> {
  return Number.parseInt(await readFile(join(folder, 'data/cluster/postmaster.pid'), 'utf8'), 10);
}

const listOf = async ({ url }: Started): Promise<unknown> => (await fetch(`${url}/api/items`)).json();

describe('npm start', () => {
  test('npm start prints a URL and a curl line that work', async () => {
    const running = await startUntilReady();
    expect(running.output()).toContain(`test page   ${running.url}/`);
    const outer = Object.values(networkInterfaces()).flatMap((all) =>
      (all ?? []).filter(({ internal, scopeid }) => !internal && !scopeid),
    );
    for (const { address, family } of outer) {
      const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${running.port}/`;
      await expect(fetch(url), url).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
    }
    const page = await fetch(`${running.url}/`);
    expect(page.headers.get('content-type')).toMatch(/^text\/html/);

    const curl = /curl -X (\w+) (\S+) -H '([^:]+): ([^']+)' -d '([^']+)'/.exec(running.output());
    const [, method, url, header, value, body] = curl as unknown as [string, string, string, string, string, string];
    const socket = new WebSocket(`ws://localhost:${running.port}/ws`);
    const received = new Promise<string>((resolve) => {
      socket.addEventListener('message', ({ data }) => resolve(data as string));
    });
    await new Promise((resolve) => socket.addEventListener('open', resolve));
    const answer = await fetch(url, { method, headers: { [header]: value }, body });
    expect(answer.status).toBe(201);
    const row = await answer.json();
    expect(row).toMatchObject({ name: 'Test Item', value: 42 });
    expect(JSON.parse(await received)).toMatchObject({ table: 'items', action: 'INSERT', data: row });
    socket.close();
    await ctrlC(running);
  });

  test('npm start keeps its data over a Ctrl-C, leaves no process behind, and drops the data with --fresh', async () => {
    const first = await startUntilReady({ args: ['--fresh'] });
    const postgres = await postgresPid();
    expect(isThere(postgres)).toBe(true);
    await fetch(`${first.url}/api/items`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{"name":"kept"}',
    });
    // the way to the database is printed, without its password, and stays the same
    const [, passFile, database] = /PGPASSFILE=(\S+) psql (postgres:\S+)/.exec(first.output())!;
    const password = (await readFile(join(folder, 'data/password'), 'utf8')).trim();
    expect(first.output()).not.toContain(password);
    const select = () =>
      run(process.execPath, ['-e', `new (require('pg').Client)('${database}').connect().then(() => process.exit(7))`], {
        cwd: root,
        env: { PATH: process.env.PATH, PGPASSFILE: resolve(root, passFile!) },
      }).catch((error: { code: number }) => error.code);
    expect(await select()).toBe(7);
    await ctrlC(first);
    expect(isThere(postgres)).toBe(false);
    expect(await readFile(join(folder, 'data/postgres.log'), 'utf8')).toContain('database system is shut down');

    const again = await startUntilReady();
    expect(await listOf(again)).toMatchObject([{ id: 1, name: 'kept' }]);
    expect(await select()).toBe(7);
    await ctrlC(again);

    const taken = createServer();
    await new Promise<void>((done) => taken.listen(Number(new URL(database!).port), '127.0.0.1', done));
    await writeFile(join(folder, 'data/mine'), 'not of Plank');
    const fresh = await startUntilReady({ args: ['--fresh'] });
    expect(await listOf(fresh)).toEqual([]);
    expect(await readFile(join(folder, 'data/mine'), 'utf8')).toBe('not of Plank');
    expect(fresh.output()).toContain(`port ${new URL(database!).port} of the last start is taken`);
    await ctrlC(fresh);
    await new Promise((done) => taken.close(done));
  });

  // npm itself ends by the signal; only its parent sees how the process below npm ends
  test.each([
    ['one SIGINT', 1],
    ['the two SIGINTs that arrive where npm passes on what the terminal sent already', 2],
  ])('npm start ends with exit code 0 on %s', async (_, times) => {
    const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
      scripts: { start: string };
    };
    const [, ...script] = scripts.start.split(' ');
    const running = await startUntilReady({ command: [process.execPath, ...script] });
    const postgres = await postgresPid();
    for (let i = 0; i < times; i++) running.child.signal('SIGINT');
    await until('it has ended', () => !running.child.running, stopMs);
    expect(running.child.ending).toBe('exit code 0');
    expect(isThere(postgres)).toBe(false);
  });

  test('npm start says in one line that the port is taken, and ends with exit code 1', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, resolve));
    try {
      const { port } = taken.address() as AddressInfo;
      const { child, output } = await start({ port });
      await until('it has ended', () => !child.running, startMs);
      expect(child.ending).toBe('exit code 1');
      const problems = output()
        .split('\n')
        .filter((line) => line !== '' && !/^>|^starting PostgreSQL/.test(line));
      expect(problems).toEqual([`plank start: port ${port}: address already in use; set PORT to another one`]);
    } finally {
      await new Promise((resolve) => taken.close(resolve));
    }
  });
});
