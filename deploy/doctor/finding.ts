/** A finding of the doctor: one sentence, and the advice that belongs to it. */

export interface Finding {
  /**
   * `fault`: Plank loses changes, stalls or is open to strangers; `warning`: Plank will be slow or fragile; `note`:
   * operators should know this
   */
  level: 'ok' | 'note' | 'warning' | 'fault';
  says: string;
  /** what operators should do about the finding */
  advice?: string;
}

export const ok = (says: string): Finding => ({ level: 'ok', says });
export const note = (says: string, advice: string): Finding => ({ level: 'note', says, advice });
export const warning = (says: string, advice: string): Finding => ({ level: 'warning', says, advice });
export const fault = (says: string, advice: string): Finding => ({ level: 'fault', says, advice });

/** A URL with "…" in place of its password, for printing. */
export function shown(url: string): string {
  const copy = new URL(url);
  if (copy.password) copy.password = '…';
  if (copy.searchParams.has('password')) copy.searchParams.set('password', '…');
  return copy.href.replaceAll('%E2%80%A6', '…');
}

export function reason(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reason(error.errors[0]);
  return error instanceof Error ? error.message : String(error);
}

/** Bytes for people: `64 MiB`. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let power = 0;
  while (bytes >= 1024 && power < units.length - 1) {
    bytes /= 1024;
    power++;
  }
  return `${bytes < 10 && power > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${units[power]}`;
}

/** A duration in ms for people: `12 s`. */
export function span(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${Math.round(ms / 1_000)} s`;
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}
