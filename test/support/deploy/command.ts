// Runs a command of deploy/ as a process of its own.

import { execFile } from 'node:child_process';
import { join } from 'node:path';

export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** `path`: of the command's file. `env`: all variables but PATH. */
export function runCommand(path: string, args: string[], env: Record<string, string>): Promise<Ended> {
  const root = join(import.meta.dirname, '../../..');
  const options = { cwd: root, env: { PATH: process.env['PATH'], ...env }, timeout: 30_000 };
  return new Promise((resolve) => {
    execFile(process.execPath, [join(root, path), ...args], options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
  });
}
