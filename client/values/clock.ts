/**
 * Converts a time of the state machine's clock to a Date for applications. That clock is `performance.now()`, which
 * never goes back.
 */
export function dateOf(moment: number): Date {
  return new Date(Date.now() - (performance.now() - moment));
}
