// Owns writing at a rate that does not depend on how fast it goes: each transaction has its time, from before the load begins, and
// carries it. A writer that is late makes up for it at once, and the delay counts.

import { setTimeout as sleep, setImmediate as yieldToIo } from 'node:timers/promises';
import { Client } from 'pg';

/** below this many a second, the last of the wait is spent turning: a timer can be a millisecond late */
const exactBelow = 500;
const timerSlackMs = 1.5;
const note = 'some words that make the row as long as rows are wont to be, which is about a hundred characters';

/** What a table must have: `id bigint generated always as identity primary key, stamp text, note text`. */
export interface Load {
  table: string;
  /** transactions a second, of all writers */
  rate: number;
  seconds: number;
}

export class OpenLoop {
  readonly #clients: Client[];

  private constructor(clients: Client[]) {
    this.#clients = clients;
  }

  static async connect(url: string, writers: number): Promise<OpenLoop> {
    const clients = Array.from({ length: writers }, () => new Client({ connectionString: url }));
    await Promise.all(clients.map((client) => client.connect()));
    return new OpenLoop(clients);
  }

  /** How many transactions each writer will make. */
  shares({ rate, seconds }: Load): number[] {
    const writers = this.#clients.length;
    const all = Math.round(rate * seconds);
    return Array.from({ length: writers }, (_, writer) => Math.ceil((all - writer) / writers));
  }

  /** Resolves when all have committed, with how long the whole took. */
  async run(load: Load): Promise<{ ms: number }> {
    const shares = this.shares(load);
    const started = process.hrtime.bigint() + 20_000_000n;
    await Promise.all(
      this.#clients.map(async (client, writer) => {
        for (let n = 0; n < shares[writer]!; n++) {
          const turn = n * this.#clients.length + writer;
          const due = started + BigInt(Math.round((turn * 1e9) / load.rate));
          await until(due, load.rate < exactBelow);
          await client.query({
            name: load.table,
            text: `insert into ${load.table} (stamp, note) values ($1, $2)`,
            values: [`${writer}.${n}.${due}`, note],
          });
        }
      }),
    );
    return { ms: Number(process.hrtime.bigint() - started) / 1e6 };
  }

  async stop(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}

async function until(due: bigint, exactly: boolean): Promise<void> {
  const leftMs = () => Number(due - process.hrtime.bigint()) / 1e6;
  const ms = leftMs() - (exactly ? timerSlackMs : 0);
  if (ms > 0) await sleep(ms);
  if (exactly) while (leftMs() > 0) await yieldToIo();
}
