// Loaded into a server that is measured (`--import`): on SIGUSR2 it collects all garbage and then says so, by creating the file
// that BENCH_COLLECTED names. In it: the bytes of all JavaScript objects that are left.

import { renameSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as (options: object) => void;
/** gives back to the system what V8 holds ready for new objects, too: how much that is depends on how fast the last ones came */
const collect = () => gc({ type: 'major', execution: 'sync', flavor: 'last-resort' });

process.on('SIGUSR2', () => {
  // what the first one makes free, finalizers let go; the next takes that as well
  for (let i = 0; i < 3; i++) collect();
  setImmediate(() => {
    collect();
    const file = process.env['BENCH_COLLECTED']!;
    writeFileSync(`${file}.part`, String(process.memoryUsage().heapUsed));
    renameSync(`${file}.part`, file);
  });
});
