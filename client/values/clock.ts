/**
 * The state machine's clock, `performance.now()`, only goes forward. Applications get the wall
 * clock.
 */
export function dateOf(moment: number): Date {
  return new Date(Date.now() - (performance.now() - moment));
}
