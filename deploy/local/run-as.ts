// Decides which user runs a server that refuses to run as root. What must stay true:
// - if the caller is an ordinary user, this user runs the server, and the prefix is empty;
// - if the caller is root, the owner of the data runs the server, else an unprivileged user of the system. This user
//   has no groups and at most one capability, which lets the user enter a folder that only root may enter;
// - the returned prefix has been tried: it ran the program from inside the folder.

import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface RunAs {
  /** The arguments before the command; none for an ordinary user. */
  prefix: string[];
  uid?: number;
  gid?: number;
  env: NodeJS.ProcessEnv;
}

export interface RunAsQuestion {
  /** The program that the user must be able to run. `--version` tests whether the user can. */
  program: string;
  /** The folder that the user must be able to enter. */
  folder: string;
  /** If this path exists, its owner is the user. */
  ownerOf: string;
}

export async function runAs({ program, folder, ownerOf }: RunAsQuestion): Promise<RunAs> {
  const env = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };
  if (process.getuid?.() !== 0) return { prefix: [], env };
  const { uid, gid } = (await owner(ownerOf)) ?? (await unprivileged());
  const failures: string[] = [];
  for (const capability of ['', 'dac_read_search', 'dac_override']) {
    const options = ['--reuid', `${uid}`, '--regid', `${gid}`, '--clear-groups'];
    // If the user may enter all folders, no capability is needed. `dac_read_search` lets the user enter other folders.
    // Most containers lack this capability and have `dac_override`, which also lets the user run programs that only
    // root may run. initdb checks its programs with access(2). The security bit makes access(2) respect capabilities,
    // as other calls do.
    if (capability !== '') {
      options.push(`--inh-caps=+${capability}`, `--ambient-caps=+${capability}`, '--securebits=+no_setuid_fixup');
    }
    options.push('--');
    try {
      const trial = ['sh', '-c', 'cd "$1" && exec "$2" --version', 'sh', folder, program];
      await run('setpriv', [...options, ...trial], { env, cwd: '/' });
      return { prefix: ['setpriv', ...options], uid, gid, env };
    } catch (error) {
      failures.push((error as { stderr?: string }).stderr?.trim() || String(error));
    }
  }
  throw new Error(
    `Postgres refuses to run as root, and running it as user ${uid} failed: ${failures[0]}\nStart as an ordinary user, or set DATABASE_URL to a Postgres of your own.`,
  );
}

async function owner(path: string): Promise<{ uid: number; gid: number } | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found === undefined || found.uid === 0 ? undefined : { uid: found.uid, gid: found.gid };
}

async function unprivileged(): Promise<{ uid: number; gid: number }> {
  for (const name of ['postgres', 'nobody']) {
    try {
      const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])]);
      return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
    } catch {
      // There is no such user, so the next name is tried.
    }
  }
  throw new Error(
    'Postgres refuses to run as root, and there is neither a user "postgres" nor "nobody" to run it as: start as an ordinary user',
  );
}
