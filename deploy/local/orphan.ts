// Finds and ends a server that an earlier run may have left behind. What must stay true:
// - only a process whose working folder is the given data folder counts as a server of this data;
// - if the parent of a server is a living Node process, the server is no orphan, so no run ends another run's server.

import { execFile } from 'node:child_process';
import { readFile, readlink, realpath } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { waitFor } from './process.ts';

const run = promisify(execFile);

export interface Orphan {
  /** The process id of the living Node process that started the server, if there is such a process. */
  ownedBy: number | undefined;
  /** Sends the signals one after another, until the process has ended. */
  end(signals: NodeJS.Signals[], deadlineMs: number): Promise<void>;
}

/** The process `pid`, if it is alive and its working folder is `folder`. */
export async function orphanOf(pid: number, folder: string): Promise<Orphan | undefined> {
  const path = await realpath(folder);
  const worksThere = async () => (await workingFolder(pid)) === path;
  if (!(await worksThere())) return undefined;
  const parent = await parentOf(pid);
  return {
    ownedBy: parent > 1 && (await isNode(parent)) ? parent : undefined,
    async end(signals, deadlineMs) {
      for (const signal of signals) {
        if (!(await worksThere())) return;
        process.kill(pid, signal);
        await waitFor(async () => !(await worksThere()), deadlineMs).catch(() => undefined);
      }
      if (await worksThere()) throw new Error(`process ${pid} works in ${folder} and does not end`);
    },
  };
}

// On Linux, these functions read /proc, because `ps` may be missing. Other systems have `ps` and `lsof`.

async function workingFolder(pid: number): Promise<string | undefined> {
  if (process.platform === 'linux') return readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  const { stdout } = await run('lsof', ['-a', '-p', `${pid}`, '-d', 'cwd', '-Fn']).catch(() => ({ stdout: '' }));
  return /^n(.*)$/m.exec(stdout)?.[1];
}

async function parentOf(pid: number): Promise<number> {
  if (process.platform !== 'linux') return Number(await ps(pid, 'ppid'));
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/^PPid:\s*(\d+)/m.exec(status)?.[1] ?? 0);
}

async function isNode(pid: number): Promise<boolean> {
  const path =
    process.platform === 'linux' ? await readlink(`/proc/${pid}/exe`).catch(() => '') : await ps(pid, 'comm');
  return basename(path).startsWith('node');
}

async function ps(pid: number, column: 'ppid' | 'comm'): Promise<string> {
  const { stdout } = await run('ps', ['-o', `${column}=`, '-p', `${pid}`]).catch(() => ({ stdout: '' }));
  return stdout.trim();
}
