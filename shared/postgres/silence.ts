/**
 * Waits for an answer as long as Postgres works on it, but not on a dead connection. A long sort and a broken network
 * look the same to the client. So a query on another connection reads what the server process of this connection does.
 */
import type { Socket } from 'node:net';
import { settlesWithin, withDeadlineOr } from '../waiting.ts';
import { type Client, limited, type Pool, type PoolClient } from './postgres.ts';

const lookEveryMs = 1_000;
const lookMs = 1_000;
/**
 * The sum of weights at which the connection counts as silent. A look that failed weighs less than a look at a process
 * that did not work, because the other connection may be the dead one.
 */
const enough = 4;
const weights = { works: 0, unknown: 1, 'does not work': 2 } as const;

type Sight = keyof typeof weights;

/**
 * Resolves with the answer. If the connection is silent, which takes about 5 s to detect, or if Postgres has worked for
 * longer than `maxMs`, rejects.
 */
export async function answered<T>(answer: Promise<T>, client: PoolClient, pool: Pool, maxMs: number): Promise<T> {
  const stream = (client as unknown as Client).connection.stream as Socket;
  const { processID } = client as unknown as { processID: number };
  const began = performance.now();
  let bytes = stream.bytesRead;
  let silence = 0;
  for (;;) {
    const waitedMs = performance.now() - began;
    if (waitedMs >= maxMs) throw silent();
    if (await settlesWithin(answer, Math.min(lookEveryMs, maxMs - waitedMs))) return answer;
    // a query on a connection that has ended is never answered
    if (stream.destroyed) throw silent();
    const sight = stream.bytesRead === bytes ? await look(pool, processID, waitedMs) : 'works';
    bytes = stream.bytesRead;
    silence = sight === 'works' ? 0 : silence + weights[sight];
    if (silence >= enough) throw silent();
  }
}

const silent = () => new Error('Postgres is silent');

/**
 * Looks at the server process. With a pooler in between, the process has another number and is not found. Then the
 * process counts as working.
 */
async function look(pool: Pool, processID: number, waitedMs: number): Promise<Sight> {
  const text = `select (select state = 'active' and wait_event_type is distinct from 'Client' from pg_stat_activity where pid = $1) as works,
                       now() - pg_postmaster_start_time() < $2 * interval '1 ms' as restarted`;
  try {
    const query = pool.query<{ works: boolean | null; restarted: boolean }>(
      limited(lookMs, text, [processID, waitedMs]),
    );
    const { rows } = await withDeadlineOr(query, lookMs, silent);
    const { works, restarted } = rows[0]!;
    return (works ?? !restarted) ? 'works' : 'does not work';
  } catch {
    return 'unknown';
  }
}
