// The clients of the benchmark of resumes: so many sockets, which count bytes. Connects them with a number of handshakes under way, as
// many as a server's queue of connections takes; a kernel that drops the others would be measured instead.
//
//   resume-clients.ts

import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from './child.ts';
import { openRawSocket, type RawSocket } from './raw-socket.ts';

export type ClientsQuestion =
  /** answers when each client has got exactly `bytes` bytes behind its handshake */
  | { ask: 'connect'; url: string; clients: number; bytes: number; deadlineMs: number }
  /** answers with how many bytes one client has got when nothing more has come for a while */
  | { ask: 'probe'; url: string }
  | { ask: 'disconnect' };

export interface Connected {
  ms: number;
  /** of those ms */
  busy: number;
  bytes: number;
}

const handshakesAtOnce = 400;
const quietMs = 300;

let open: RawSocket[] = [];

serve(0, async (question: ClientsQuestion): Promise<Connected> => {
  if (question.ask === 'disconnect') {
    // a reset leaves no port waiting
    for (const { socket } of open) socket.resetAndDestroy();
    open = [];
    return { ms: 0, busy: 0, bytes: 0 };
  }
  if (question.ask === 'probe') return { ms: 0, busy: 0, bytes: await probe(question.url) };
  return connect(question);
});

async function probe(url: string): Promise<number> {
  let bytes = 0;
  const raw = await openRawSocket(url, (chunk) => {
    bytes += chunk.length;
  });
  for (let before = -1; before !== bytes; ) {
    before = bytes;
    await sleep(quietMs);
  }
  raw.socket.resetAndDestroy();
  return bytes;
}

async function connect(request: Extract<ClientsQuestion, { ask: 'connect' }>): Promise<Connected> {
  const { promise: allThere, resolve } = Promise.withResolvers<void>();
  const got = new Uint32Array(request.clients);
  let complete = 0;
  const done = () => {
    if (++complete === request.clients) resolve();
  };
  const cpu = process.cpuUsage();
  const started = performance.now();
  let next = 0;
  const line = async () => {
    while (next < request.clients) {
      const client = next++;
      open.push(
        await openRawSocket(request.url, (chunk) => {
          const before = got[client]!;
          got[client] = before + chunk.length;
          if (before < request.bytes && got[client] >= request.bytes) done();
        }),
      );
      if (request.bytes === 0) done();
    }
  };
  const late = new AbortController();
  try {
    await Promise.race([
      Promise.all([allThere, ...Array.from({ length: handshakesAtOnce }, line)]),
      sleep(request.deadlineMs, undefined, { signal: late.signal }).then(() => {
        throw new Error(`${complete} of ${request.clients} clients have all after ${request.deadlineMs} ms`);
      }),
    ]);
  } finally {
    late.abort();
  }
  const ms = performance.now() - started;
  const { user, system } = process.cpuUsage(cpu);
  const busy = (user + system) / 1_000 / ms;
  // what comes twice comes later
  await sleep(quietMs);
  const wrong = got.findIndex((bytes) => bytes !== request.bytes);
  if (wrong >= 0) throw new Error(`client ${wrong} got ${got[wrong]} bytes instead of ${request.bytes}`);
  return { ms, busy, bytes: request.bytes };
}
