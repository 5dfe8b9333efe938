// `npm run bench [-- names] [-- --quick] [-- --save]`: runs benchmarks one after the other, and keeps their results.
//
//   latency   from commit to client, at rising rates, against one process that does it all and Socket.IO
//   drain     rows from Postgres to Redis: rows a second and CPU a row, against reading them and an XADD for each
//   backlog   what was written while no listener ran: how fast it is worked off, and in how much memory
//   resume    10,000 clients that come back at once, 100 changes behind
//   fanout    a change, and ten at once, to 1,000 sockets and more: CPU a delivery, against raw writes, ws and Socket.IO
//   channels  a change to 10 of 5,000 sockets, in 1,000 channels: CPU a delivery
//   replicas  the same clients on one, two and four gateways
//   nginx     what nginx in front costs, of Plank and of raw writes
//   idle      bytes of an idle connection, against net, ws and Socket.IO
//   filters   what a change costs a gateway with many subscriptions that ask for other rows
//   access    what policies cost a gateway: 10,000 users with rows of their own; memory of subscriptions and sets
//   writers   what capture costs those who write: transactions a second with and without Plank, and with pg_notify
//
// Only ratios measured side by side in one run count. The variants of a benchmark take turns (A B B A) after a warm-up; a ratio
// is the median of the rounds' ratios with its bootstrap 95 % interval, and a target holds if the worse end of that holds. A
// benchmark that lost, doubled or disordered a change ends with an error. Missing a target is no error.
//
// All targets are in the table at the end. Everything measured goes to .plank/bench/<name>.json, the table to summary.json
// beside it, and plots as SVG; --save puts table and plots into test/bench/results/ as well, for docs/performance.md.
// --quick makes few and short rounds of all: it shows that everything works, and measures nothing.

import { mkdir, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { access } from './access.ts';
import { backlog } from './backlog.ts';
import { channels } from './channels.ts';
import { drain } from './drain.ts';
import { fanout } from './fanout.ts';
import { filters } from './filters.ts';
import { idle } from './idle.ts';
import { latency } from './latency.ts';
import { nginxPath } from './nginx-path.ts';
import { margins } from './plot.ts';
import { replicas } from './replicas.ts';
import { type Bench, type Row, table } from './report.ts';
import { resume } from './resume.ts';
import { writers } from './writers.ts';

const suites: Record<string, Bench> = {
  latency,
  drain,
  backlog,
  resume,
  fanout,
  channels,
  replicas,
  nginx: nginxPath,
  idle,
  filters,
  access,
  writers,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, save: { type: 'boolean', default: false } },
});
const { quick, save } = values;
if (quick && save) throw new Error('what a quick run measures is not worth keeping');
/** of one benchmark, on however busy a machine */
const maxMinutes = 30;
const names = positionals.length > 0 ? positionals : Object.keys(suites);
const unknown = names.filter((name) => !(name in suites));
if (unknown.length > 0)
  throw new Error(`there is no benchmark ${unknown.join(', ')}, only ${Object.keys(suites).join(', ')}`);

const results = join(import.meta.dirname, '../../.plank/bench');
const folders = [results, ...(save ? [join(import.meta.dirname, 'results')] : [])];
for (const folder of folders) await mkdir(folder, { recursive: true });
const machine = {
  cpu: cpus()[0]?.model,
  cores: availableParallelism(),
  memoryGb: Math.round(totalmem() / 1024 ** 3),
  platform: `${process.platform} ${process.arch}`,
  node: process.version,
};
const date = new Date().toISOString();
const about = { date, quick, machine };
console.log(
  `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}${quick ? ', quick: figures mean little' : ''}`,
);

const rows: Row[] = [];
for (const name of names) {
  console.log(`\n${name}`);
  const folder = join(results, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const started = performance.now();
  const late = setTimeout(() => {
    console.error(`${name} is not done after ${maxMinutes} minutes`);
    // what it has started ends with this process
    process.exit(1);
  }, maxMinutes * 60_000);
  try {
    const { plots = {}, ...result } = await suites[name]!({ quick, folder, say: console.log });
    const seconds = Math.round((performance.now() - started) / 1_000);
    await writeJson(join(results, `${name}.json`), { name, seconds, ...about, ...result });
    for (const [plot, svg] of Object.entries(plots))
      for (const to of folders) await writeFile(join(to, `${plot}.svg`), svg);
    rows.push(...result.rows);
    console.log(`  ${seconds} s`);
    // a failed one keeps its data and logs
    await rm(folder, { recursive: true, force: true });
  } catch (error) {
    // the others are worth their time all the same
    console.error(error);
    process.exitCode = 1;
  } finally {
    clearTimeout(late);
  }
}
for (const to of folders) {
  await writeJson(join(to, 'summary.json'), { ...about, benchmarks: names, rows });
  await writeFile(join(to, 'targets.svg'), margins(rows));
}
console.log(`\n${table(rows)}\n\n→ ${results}`);
if (process.exitCode) console.error('a benchmark failed: see above');

async function writeJson(file: string, value: object): Promise<void> {
  await writeFile(file, `${JSON.stringify(value, null, 2)}\n`);
}
