// `npm run bench [-- names] [-- --quick]`: runs benchmarks, each by itself, and keeps their results.
//
//   writers   what capture costs those who write: transactions a second with and without Plank, and with pg_notify
//   filters   what a change costs a gateway with many subscriptions that ask for other rows
//
// A benchmark prints its table, and its numbers go to .plank/bench/<name>.json. Only ratios measured side by side in one run
// count; a run that lost a change ends with an error. Missing a target is no error.

import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { filters } from './filters.ts';
import { writers } from './writers.ts';

export interface BenchOptions {
  /** few and short rounds: shows that it works, and measures nothing */
  quick: boolean;
  /** for data and logs of this benchmark; emptied before */
  folder: string;
  say: (text: string) => void;
}

const suites: Record<string, (options: BenchOptions) => Promise<object>> = { writers, filters };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false } },
});
const names = positionals.length > 0 ? positionals : Object.keys(suites);
const unknown = names.filter((name) => !(name in suites));
if (unknown.length > 0)
  throw new Error(`there is no benchmark ${unknown.join(', ')}, only ${Object.keys(suites).join(', ')}`);

const results = join(import.meta.dirname, '../../.plank/bench');
await mkdir(results, { recursive: true });
for (const name of names) {
  const machine = {
    cpu: cpus()[0]?.model,
    cores: availableParallelism(),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
  };
  console.log(`${name}: ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}${values.quick ? ', quick' : ''}`);
  const date = new Date().toISOString();
  const result = await suites[name]!({ quick: values.quick, folder: join(results, name), say: console.log });
  const file = join(results, `${name}.json`);
  await writeFile(file, `${JSON.stringify({ name, date, quick: values.quick, machine, ...result }, null, 2)}\n`);
  console.log(`\n→ ${file}`);
}
