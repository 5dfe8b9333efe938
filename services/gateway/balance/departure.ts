/** How clients are asked to go elsewhere: told when at first, then closed one after the other, so that they arrive spread out. */
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { sleep } from '#shared/waiting.ts';
import type { Outlet } from '../relay/outlet.ts';

/** One client, over whatever transport, as far as it is about its leaving. */
export interface Guest {
  readonly outlet: Outlet;
  /** of performance.now() */
  readonly openedAt: number;
  /** it knows a position to go on from: what is committed while it is away reaches it then */
  readonly resumes: boolean;
  /** Says that it will be closed after so long. */
  tell(afterMs: number): void;
  /** Closes it: come back. */
  dismiss(why: string): void;
}

/** told or closed in one go, before others get their turn */
const batch = 500;
const tickMs = 20;

/** Tells all of them, then closes them in this order, evenly over `overMs`. On abort the rest stays. */
export async function depart(
  guests: readonly Guest[],
  { overMs, why, signal }: { overMs: number; why: string; signal: AbortSignal },
): Promise<void> {
  const startedAt = performance.now();
  const count = guests.length;
  for (const [i, guest] of guests.entries()) {
    if (signal.aborted) return;
    if (guest.outlet.open) guest.tell(Math.ceil((overMs * (i + 1)) / count));
    if (i % batch === batch - 1) await yieldToIo();
  }
  let gone = 0;
  while (!signal.aborted && gone < count) {
    const due = Math.min(count, Math.floor((count * (performance.now() - startedAt)) / overMs));
    const now = Math.min(due, gone + batch);
    for (; gone < now; gone++) guests[gone]!.dismiss(why);
    if (gone < due) await yieldToIo();
    else if (gone < count) await sleep(tickMs, signal);
  }
}

/** At random: nobody is always the first. */
export function shuffled<T>(things: Iterable<T>): T[] {
  const list = Array.from(things);
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}
