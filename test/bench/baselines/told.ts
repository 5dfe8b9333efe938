// Owns how a baseline is told what to do: its sockets, by the channels that each asked for in its URL (`/ws?channels=3,17`; without:
// all changes), and the flushes, at a fixed rate. A flush is one change in each of so many channels, which take turns, or so many
// changes for all.
//
//   run <flushes> <everyMs> <changes>    → done

import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

export class Members<S> {
  readonly everyone: S[] = [];
  readonly channels: S[][] = [];

  /** `path`: of the socket's URL. */
  add(socket: S, path: string): void {
    const numbers = channelsOf(path);
    if (numbers.length === 0) this.everyone.push(socket);
    for (const channel of numbers) (this.channels[channel] ??= []).push(socket);
  }
}

export function channelsOf(path: string): number[] {
  return (/channels=([\d,]+)/.exec(path)?.[1] ?? '').split(',').filter(Boolean).map(Number);
}

interface Server<S> {
  port: number;
  members: Members<S>;
  /** So many changes for everyone. */
  flush(changes: number): void;
  /** One change for a channel. */
  flushChannel(channel: number, members: readonly S[]): void;
}

export function told<S>(server: Server<S>): void {
  const { channels } = server.members;
  let next = 0;

  async function run(flushes: number, everyMs: number, changes: number): Promise<void> {
    const started = performance.now();
    for (let i = 0; i < flushes; i++) {
      await delay(Math.max(0, started + i * everyMs - performance.now()));
      if (channels.length === 0) server.flush(changes);
      else
        for (let j = 0; j < changes; j++, next = (next + 1) % channels.length)
          server.flushChannel(next, channels[next]!);
    }
    process.stdout.write('done\n');
  }

  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const [, flushes = 0, everyMs = 0, changes = 0] = line.split(' ').map(Number);
      void run(flushes, everyMs, changes);
    })
    .on('close', () => process.exit());
  process.stdout.write(`${server.port}\n`);
}
