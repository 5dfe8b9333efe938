/**
 * Converts a time of the state machine's clock, `performance.now()`, which only goes forward, to a Date for
 * applications.
 */
export function dateOf(moment: number): Date {
  return new Date(Date.now() - (performance.now() - moment));
}
