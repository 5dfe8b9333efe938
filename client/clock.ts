/** The brain's clock only goes forward (performance.now()); applications want the wall's. */
export function dateOf(moment: number): Date {
  return new Date(Date.now() - (performance.now() - moment));
}
