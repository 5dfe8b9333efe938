// Loaded into a server that is measured (`--import`): on SIGUSR2 it collects all garbage and then says so, by creating the file
// that BENCH_COLLECTED names.

import { writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

process.on('SIGUSR2', () => {
  // what the first one makes free, finalizers let go; the next takes that as well
  for (let i = 0; i < 3; i++) collect();
  setImmediate(() => {
    collect();
    writeFileSync(process.env['BENCH_COLLECTED']!, '');
  });
});
