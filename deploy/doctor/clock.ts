/**
 * Compares another clock with the clock of this machine. Only measured latencies depend on clocks, so a difference is
 * never a fault.
 */
import { type Finding, ok, span, warning } from './finding.ts';

/** The tolerated difference. Plank computes latencies, in ms, from these clocks. */
const toleratedMs = 100;

/** Reads another clock (`ask`, in ms since 1970). Assumes that the answer was made in the middle of the round trip. */
export async function compareClock(whose: string, ask: () => Promise<number>): Promise<Finding> {
  let best: { offMs: number; tripMs: number } | undefined;
  for (let i = 0; i < 5; i++) {
    const before = Date.now();
    const started = performance.now();
    const theirs = await ask();
    const tripMs = performance.now() - started;
    if (!best || tripMs < best.tripMs) best = { offMs: theirs - (before + tripMs / 2), tripMs };
  }
  return verdict(whose, best!.offMs, best!.tripMs);
}

export function verdict(whose: string, offMs: number, tripMs: number): Finding {
  const surely = Math.abs(offMs) - tripMs / 2;
  if (surely <= toleratedMs) return ok(`its clock agrees with this machine's (within ${span(Math.abs(offMs))})`);
  return warning(
    `the clock of ${whose} is ${span(Math.abs(offMs))} ${offMs > 0 ? 'ahead of' : 'behind'} this machine's`,
    'synchronize every machine by NTP: order and delivery do not depend on clocks, but latencies in metrics do',
  );
}
