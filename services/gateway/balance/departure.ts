/**
 * Sends clients to other replicas: first warns each client when its connection will be closed, then
 * closes the connections one after the other, so that the clients do not all arrive elsewhere at once.
 */
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { sleep } from '#shared/waiting.ts';
import type { Client } from '../clients/client.ts';

/** number of clients to warn or close before other work gets its turn */
const batch = 500;
const tickMs = 20;

/**
 * Warns all clients, then closes them in the same order, evenly over `overMs`. On abort, clients that
 * are not closed yet stay.
 */
export async function depart(
  clients: readonly Client[],
  { overMs, reason, signal }: { overMs: number; reason: string; signal: AbortSignal },
): Promise<void> {
  const startedAt = performance.now();
  const count = clients.length;
  for (const [i, client] of clients.entries()) {
    if (signal.aborted) return;
    if (client.outlet.open) client.warn(Math.ceil((overMs * (i + 1)) / count));
    if (i % batch === batch - 1) await yieldToIo();
  }
  let closed = 0;
  while (!signal.aborted && closed < count) {
    const due = Math.min(count, Math.floor((count * (performance.now() - startedAt)) / overMs));
    const next = Math.min(due, closed + batch);
    for (; closed < next; closed++) clients[closed]!.dismiss(reason);
    if (closed < due) await yieldToIo();
    else if (closed < count) await sleep(tickMs, signal);
  }
}

/** The same things in a random order, so that no client is always the first. */
export function shuffled<T>(things: Iterable<T>): T[] {
  const list = Array.from(things);
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}
