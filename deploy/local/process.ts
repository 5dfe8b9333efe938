// Owns the child processes of a local run. Each child starts in a session of its own, writes its output to a log file,
// and is ended only by its pid. What must stay true:
// - no child outlives its parent: the kernel ends the child (Linux), or an exit hook does (elsewhere);
// - a Ctrl-C in the terminal reaches only the parent, which then ends the children in its own order;
// - every wait ends: by its condition, by the child's exit, or by its deadline.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readFileSync, statSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface ChildOptions {
  name: string;
  command: string;
  args: string[];
  /** The file that gets stdout and stderr of the child. */
  logFile: string;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** A command that runs the rest of its line, as `setpriv … --` does. It comes before the child's command. */
  prefix?: string[];
  /**
   * The signal on which the child ends at once and ends its own children. The child gets this signal when its parent
   * has ended.
   */
  orphanSignal?: NodeJS.Signals;
}

const live = new Set<Child>();

function endAll(): void {
  for (const child of live) child.signal(child.orphanSignal);
}

/** A running child process. `exited` resolves when the process has ended; it never rejects. */
export class Child {
  readonly name: string;
  readonly pid: number;
  readonly orphanSignal: NodeJS.Signals;
  readonly exited: Promise<void>;
  /** How the process ended (`exit code 1`, `SIGKILL`); undefined while it runs. */
  ending: string | undefined;
  readonly #process: ChildProcess;
  readonly #logFile: string;

  constructor(process: ChildProcess, options: ChildOptions) {
    this.name = options.name;
    this.pid = process.pid!;
    this.orphanSignal = options.orphanSignal ?? 'SIGKILL';
    this.#process = process;
    this.#logFile = options.logFile;
    this.exited = new Promise((resolve) => {
      process.once('exit', (code, signal) => {
        this.ending = signal === null ? `exit code ${code}` : signal;
        forget(this);
        resolve();
      });
    });
  }

  get running(): boolean {
    return this.ending === undefined;
  }

  signal(name: NodeJS.Signals): void {
    if (this.running) this.#process.kill(name);
  }

  /** Sends `signal`, and SIGKILL after `deadlineMs`. Resolves when the process has ended. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', deadlineMs = 10_000): Promise<void> {
    this.signal(signal);
    if (!(await settled(this.exited, deadlineMs))) await this.kill();
  }

  /** Sends SIGKILL to the child's process group. */
  async kill(): Promise<void> {
    if (this.running) process.kill(-this.pid, 'SIGKILL');
    await this.exited;
  }

  /** The last lines of the child's log, for error messages. */
  logTail(lines = 12): string {
    try {
      return readFileSync(this.#logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
    } catch {
      return '';
    }
  }

  /**
   * Waits until `ready` returns true. If the child ends first, or the deadline passes, throws an error with the end of
   * the log.
   */
  async waitUntil(ready: () => boolean | Promise<boolean>, deadlineMs: number): Promise<void> {
    try {
      await waitFor(async () => {
        if (!this.running) throw new Error(`it ended with ${this.ending}`);
        return ready();
      }, deadlineMs);
    } catch (cause) {
      await this.kill();
      const tail = this.logTail();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`${this.name} did not start: ${why}${tail === '' ? '' : `\n${tail}`}`, { cause });
    }
  }
}

function forget(child: Child): void {
  live.delete(child);
  if (live.size === 0) process.off('exit', endAll);
}

/** Starts a child. If the program cannot be run at all, rejects. Use `waitUntil` to wait until the child is ready. */
export async function startChild(options: ChildOptions): Promise<Child> {
  const orphan = diesWithParent() ? ['setpriv', '--pdeathsig', (options.orphanSignal ?? 'SIGKILL').slice(3), '--'] : [];
  const [command = '', ...args] = [...(options.prefix ?? []), ...orphan, options.command, ...options.args];
  const log = openSync(options.logFile, 'w', 0o600);
  try {
    const spawned = spawn(command, args, {
      stdio: ['ignore', log, log],
      detached: true,
      env: options.env ?? process.env,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    await new Promise<void>((resolve, reject) => {
      spawned.once('spawn', resolve);
      spawned.once('error', (cause) => reject(new Error(`cannot run ${options.name}: ${cause.message}`, { cause })));
    });
    const child = new Child(spawned, options);
    if (live.size === 0) process.on('exit', endAll);
    live.add(child);
    return child;
  } finally {
    closeSync(log);
  }
}

let setprivKnown: boolean | undefined;

function diesWithParent(): boolean {
  setprivKnown ??=
    process.platform === 'linux' && spawnSync('setpriv', ['--pdeathsig', 'KILL', '--', 'true']).status === 0;
  return setprivKnown;
}

/**
 * Returns a port of 127.0.0.1 that is free now. Another process may take this port before the caller does: see
 * `onFreePort`.
 */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return address.port;
}

/**
 * Runs `start` on `port`. Without `port`, runs `start` on a free port; if another process takes the port in the
 * meantime, tries again on another free port (5 attempts).
 */
export async function onFreePort<T>(port: number | undefined, start: (port: number) => Promise<T>): Promise<T> {
  if (port !== undefined) return start(port);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start(await freePort());
    } catch (error) {
      if (!isTaken(error) || attempt === 5) throw error;
    }
  }
}

/** Whether a program could not listen because another program has the port. */
export function isTaken(error: unknown): boolean {
  return error instanceof Error && /address (already )?in use/i.test(error.message);
}

/** Polls `condition` until it returns true. If `condition` throws, throws its error. If the deadline passes, throws. */
export async function waitFor(condition: () => boolean | Promise<boolean>, deadlineMs: number): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not ready within ${deadlineMs / 1000} s`);
    await delay(15);
  }
}

/**
 * Whether something accepts connections on 127.0.0.1:`port`. If `ask` is given, sends this text; the result is then
 * whether the answer begins with `answer`.
 */
export async function accepts(port: number, ask?: string, answer = ''): Promise<boolean> {
  const socket = connect({ port, host: '127.0.0.1', timeout: 1000 });
  try {
    return await new Promise<boolean>((resolve) => {
      socket.on('error', () => resolve(false)).on('timeout', () => resolve(false));
      socket.on('close', () => resolve(false));
      socket.once('data', (bytes) => resolve(bytes.toString('latin1').startsWith(answer)));
      socket.once('connect', () => (ask === undefined ? resolve(true) : socket.write(ask)));
    });
  } finally {
    socket.destroy();
  }
}

/** The full path of the first program of `names` that is in PATH. */
export function findProgram(...names: string[]): string | undefined {
  // servers are in sbin folders, which an ordinary user's PATH may lack
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  if (folders.includes('/usr/bin')) folders.push('/usr/local/sbin', '/usr/sbin');
  for (const name of names) {
    for (const folder of folders) {
      const file = join(folder, name);
      try {
        accessSync(file, constants.X_OK);
        if (statSync(file).isFile()) return file;
      } catch {
        // not in this folder
      }
    }
  }
  return undefined;
}

async function settled(promise: Promise<void>, deadlineMs: number): Promise<boolean> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      promise.then(() => true),
      delay(deadlineMs, false, { signal: timer.signal }).catch(() => false),
    ]);
  } finally {
    timer.abort();
  }
}
