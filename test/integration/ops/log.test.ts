// The log of a process may be lost, because the disk is full or its reader is gone. The process runs on.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { expect, test } from 'vitest';

test.each([
  ['a full disk', '/dev/full'],
  ['a pipe whose reader has gone', 'pipe'],
  ['a file that may only be read', '/dev/null'],
])('a process runs on when its output is %s', async (_where, output) => {
  const fd = output === 'pipe' ? 'pipe' : openSync(output, output === '/dev/full' ? 'w' : 'r');
  const program = new URL('../../support/stage/log-writer.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [program], { stdio: ['ignore', fd, fd, 'ipc'] });
  try {
    child.stdout?.destroy();
    child.stderr?.destroy();
    const exited = once(child, 'exit');
    const [first] = await Promise.race([once(child, 'message'), exited]);
    expect(first).toBe('written');
    child.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
  } finally {
    child.kill('SIGKILL');
    if (typeof fd === 'number') closeSync(fd);
  }
});
