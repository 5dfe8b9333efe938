// The receiving process of the latency benchmark: sockets to each relay. One of every `sampleEvery` reads the stamps of what comes
// ("stamp":"writer.n.scheduled", in ns of the machine's clock) and checks that of each writer n counts up by one; the others
// count bytes, which must be as many as the sampled ones got.

import { build, type Histogram } from 'hdr-histogram-js';
import { serve } from './child.ts';
import { openRawSocket } from './raw-socket.ts';

export type ReceiverQuestion =
  /** with `greeting`, each socket says that and waits for an answer that has `greeted` in it */
  | { ask: 'connect'; relay: string; url: string; sockets: number; sampleEvery: number; greeting?: [string, string] }
  /** the stamps to come: so many by each writer, of which the first `leadIn` are not measured */
  | { ask: 'expect'; relay: string; perWriter: number[]; leadIn: number }
  /** answers when all of them have come, at the latest after `deadlineMs` */
  | { ask: 'result'; deadlineMs: number };

export interface Received {
  p50Ms: number;
  p99Ms: number;
  p999Ms: number;
  /** at least one of these: the round is void */
  problems: string[];
  /** of the time since `expect`; 1: as busy as a process with one thread can be */
  busy: number;
}

const stampStart = Buffer.from('"stamp":"');
const pingBytes = 2;
const pingOpcode = 0x89;
const quote = 0x22;
const dot = 0x2e;

class Subscriber {
  readonly sampled: boolean;
  bytes = 0;
  stamps = 0;
  problem: string | undefined;
  #rest: Buffer | undefined;
  #next: number[] = [];

  constructor(sampled: boolean) {
    this.sampled = sampled;
  }

  async connect(url: string, greeting: readonly [string, string] | undefined): Promise<void> {
    const { promise: greeted, resolve } = Promise.withResolvers<void>();
    let heard = '';
    const hear = (bytes: Buffer) => {
      heard += bytes.toString('latin1');
      if (heard.includes(greeting![1])) resolve();
    };
    const raw = await openRawSocket(url, greeting ? hear : (bytes) => this.#receive(bytes), greeting?.[0]);
    raw.socket.once('close', () => {
      this.problem ??= 'a connection was closed';
    });
    if (greeting) await greeted;
    raw.onBytes = (bytes) => this.#receive(bytes);
  }

  begin(writers: number): void {
    this.bytes = 0;
    this.stamps = 0;
    this.#next = Array.from({ length: writers }, () => 0);
  }

  #receive(bytes: Buffer): void {
    if (bytes.length === pingBytes && bytes[0] === pingOpcode) return;
    this.bytes += bytes.length;
    if (!this.sampled) return;
    const now = Number(process.hrtime.bigint());
    const all = this.#rest ? Buffer.concat([this.#rest, bytes]) : bytes;
    let from = 0;
    for (;;) {
      const at = all.indexOf(stampStart, from);
      const start = at + stampStart.length;
      const end = at < 0 ? -1 : all.indexOf(quote, start);
      if (end < 0) {
        const keepFrom = at < 0 ? Math.max(from, all.length - stampStart.length + 1) : at;
        this.#rest = Buffer.from(all.subarray(keepFrom));
        return;
      }
      this.#stamp(all, start, end, now);
      from = end;
    }
  }

  #stamp(bytes: Buffer, start: number, end: number, now: number): void {
    const fields = [0, 0, 0];
    let field = 0;
    for (let i = start; i < end; i++) {
      if (bytes[i] === dot) field++;
      else fields[field] = fields[field]! * 10 + bytes[i]! - 48;
    }
    const [writer = 0, n = 0, scheduled = 0] = fields;
    if (n !== this.#next[writer])
      this.problem ??= `change ${n} of writer ${writer} came where ${this.#next[writer]} was due`;
    this.#next[writer] = n + 1;
    this.stamps++;
    if (n >= leadIn) histogram.recordValue(Math.max(1, Math.round((now - scheduled) / 1_000)));
  }
}

const relays = new Map<string, Subscriber[]>();
let current: Subscriber[] = [];
let expected = 0;
let leadIn = 0;
let histogram: Histogram = newHistogram();
let since = { cpu: process.cpuUsage(), at: performance.now() };

serve(0, async (question: ReceiverQuestion): Promise<Received | null> => {
  if (question.ask === 'connect') {
    const { relay, url, sockets, sampleEvery, greeting } = question;
    const list = Array.from({ length: sockets }, (_, i) => new Subscriber(i % sampleEvery === sampleEvery >> 1));
    await Promise.all(list.map((subscriber) => subscriber.connect(url, greeting)));
    relays.set(relay, list);
    return null;
  }
  if (question.ask === 'expect') {
    current = relays.get(question.relay)!;
    for (const subscriber of current) subscriber.begin(question.perWriter.length);
    expected = question.perWriter.reduce((sum, count) => sum + count, 0);
    leadIn = question.leadIn;
    histogram = newHistogram();
    since = { cpu: process.cpuUsage(), at: performance.now() };
    return null;
  }
  const end = performance.now() + question.deadlineMs;
  while (!complete() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  const { user, system } = process.cpuUsage(since.cpu);
  const busy = (user + system) / 1_000 / (performance.now() - since.at);
  const ms = (percentile: number) => histogram.getValueAtPercentile(percentile) / 1_000;
  return { p50Ms: ms(50), p99Ms: ms(99), p999Ms: ms(99.9), problems: problems(), busy };
});

function complete(): boolean {
  const sampled = current.filter((one) => one.sampled);
  const bytes = sampled[0]!.bytes;
  return sampled.every(({ stamps }) => stamps >= expected) && current.every((one) => one.bytes >= bytes);
}

/** In words: what was lost, doubled or out of order. */
function problems(): string[] {
  const found = current.flatMap(({ problem }) => problem ?? []);
  const sampled = current.filter((one) => one.sampled);
  const counts = sampled.filter(({ stamps }) => stamps !== expected);
  if (counts.length > 0) found.push(`${counts[0]!.stamps} changes came of ${expected}, on ${counts.length} sockets`);
  const bytes = sampled[0]!.bytes;
  const other = current.filter((one) => one.bytes !== bytes);
  if (other.length > 0) found.push(`${other[0]!.bytes} bytes instead of ${bytes} came on ${other.length} sockets`);
  return found.slice(0, 3);
}

/** in µs */
function newHistogram(): Histogram {
  return build({ lowestDiscernibleValue: 1, highestTrackableValue: 600_000_000, numberOfSignificantValueDigits: 3 });
}
