/**
 * `npm run torture`: real processes under load, faults and DDL, judged by a checker that shares no code with Plank.
 *
 *   --seed N        (1)     the first run's; the same seed makes the same choices
 *   --runs N        (1)     runs, each with the next seed
 *   --seconds N     (60)    of each run
 *   --programs DIR          of another PostgreSQL than the one that comes along: /usr/lib/postgresql/15/bin
 *
 * Exits with 1 where anything was wrong.
 */
import { parseArgs } from 'node:util';
import { torture } from './run.ts';

const say = (text: string) => process.stdout.write(`${text}\n`);

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '60' },
    programs: { type: 'string' },
  },
});

function whole(name: 'seed' | 'runs' | 'seconds'): number {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} must be a whole number above 0`);
  return value;
}

const [first, runs, seconds] = [whole('seed'), whole('runs'), whole('seconds')];
let wrong = 0;
for (let seed = first; seed < first + runs; seed++) {
  const started = performance.now();
  const { programs } = values;
  const result = await torture({ seed, seconds, say, ...(programs === undefined ? {} : { programs }) });
  const { problems, faults, commits, deliveries, slowestMs } = result;
  wrong += problems.length;
  for (const problem of problems.slice(0, 20)) say(`  WRONG ${problem}`);
  say(
    `seed ${seed}: ${problems.length} violations; ${faults} faults, ${commits} transactions, ${deliveries} deliveries, slowest agreement ${(slowestMs / 1_000).toFixed(1)} s; ${Math.round((performance.now() - started) / 1_000)} s`,
  );
}
process.exitCode = wrong > 0 ? 1 : 0;
