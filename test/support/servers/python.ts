// Owns a Python with the package `websockets`: this system's, else one with the distribution's package, unpacked into the cache.

import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { packageProgram } from '#deploy/local/packages.ts';
import { findProgram } from '#deploy/local/process.ts';

const run = promisify(execFile);

export async function pythonWithWebsockets(): Promise<{ program: string; env: NodeJS.ProcessEnv }> {
  const installed = findProgram('python3', 'python');
  if (installed !== undefined && (await imports(installed, process.env)))
    return { program: installed, env: process.env };
  try {
    const program = await packageProgram({ packages: ['python3-websockets'], program: 'usr/bin/python3' });
    const env = { ...process.env, PYTHONPATH: join(dirname(program), 'root/usr/lib/python3/dist-packages') };
    if (!(await imports(program, env))) throw new Error('the package does not work here');
    return { program, env };
  } catch (cause) {
    throw new Error(
      `this test needs Python with websockets (${(cause as Error).message}): pip install websockets, or apt-get install python3-websockets`,
      { cause },
    );
  }
}

function imports(program: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  return run(program, ['-c', 'import websockets'], { env }).then(
    () => true,
    () => false,
  );
}
