// Owns the C programs of the benchmarks: compiled when they are run, by whatever `cc` there is.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from '#deploy/local/process.ts';

const run = promisify(execFile);

/** The path of the program, in `folder`; null where there is no C compiler. */
export async function compiled(source: string, folder: string): Promise<string | null> {
  const cc = findProgram('cc', 'gcc', 'clang');
  if (cc === undefined) return null;
  const program = join(folder, source.replace(/^.*\/|\.c$/g, ''));
  await run(cc, ['-O2', '-o', program, source]);
  return program;
}
