// Policies under random writes, drops and restarts: what clients see and what they are sent, judged by Postgres and by the log. Longer runs:
// PLANK_TEST_SEED=7 PLANK_TEST_SECONDS=60 npx vitest run --project fault test/fault/access.test.ts

import { expect, test } from 'vitest';
import { accessRun } from '../torture/access/run.ts';

const seed = Number(process.env.PLANK_TEST_SEED ?? 1);
const seconds = Number(process.env.PLANK_TEST_SECONDS ?? 6);

test(
  'no client sees or is sent what its policy does not admit',
  async () => {
    const lines: string[] = [];
    const { problems, counts } = await accessRun({ seed, seconds, say: (line) => lines.push(line) });
    expect(problems.slice(0, 5), `${problems.length} problems\n${lines.join('\n')}`).toEqual([]);
    expect(counts.change).toBeGreaterThan(1_000);
    expect(counts.plain).toBeGreaterThan(100);
    expect(counts['resync access']).toBeGreaterThan(10);
    expect(counts.restarts).toBeGreaterThan(0);
  },
  60_000 + 2_000 * seconds,
);
