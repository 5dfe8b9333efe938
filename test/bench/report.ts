// Owns what a benchmark hands back and how it is told: one line a figure, judged against its target by the worse end of its
// 95 % interval.

import { type Interval, interval, median, ratio } from './stats.ts';

export interface BenchOptions {
  /** few and short rounds: shows that it works, and measures nothing */
  quick: boolean;
  /** for data and logs of this benchmark; emptied before */
  folder: string;
  say: (text: string) => void;
}

export interface BenchResult {
  rows: Row[];
  /** what was measured round by round, for machines */
  raw: object;
  /** SVG by file name, without the ending */
  plots?: Record<string, string>;
}

export type Bench = (options: BenchOptions) => Promise<BenchResult>;

export type Target = { atMost: number } | { atLeast: number };

/** One line of the table: a figure of Plank's, and mostly its ratio to that of something else. */
export interface Row {
  /** of the suite: a, b1, b2, … */
  id: string;
  name: string;
  unit: string;
  /** medians, in `unit` */
  measured: number;
  baseline: number | null;
  /** what `baseline` is of */
  against: string | null;
  /** measured ÷ baseline; without a baseline, the measured figure itself */
  judged: Interval;
  target: string | null;
  /** how many times better than the target; below 1: missed */
  margin: Interval | null;
  verdict: 'held' | 'missed' | 'informative';
}

interface Named {
  id: string;
  name: string;
  unit: string;
  /** by round */
  measured: readonly number[];
  target?: Target;
}

/** A figure against another of the same rounds: the target is one of the ratio measured ÷ baseline. */
export function compared(figure: Named & { against: string; baseline: readonly number[] }): Row {
  const { measured, baseline, against } = figure;
  return row(figure, ratio(measured, baseline), median(baseline), against);
}

/** A figure by itself: the target is one of the figure. */
export function alone(figure: Named): Row {
  return row(figure, interval(figure.measured), null, null);
}

function row(figure: Named, judged: Interval, baseline: number | null, against: string | null): Row {
  const { id, name, unit, measured, target } = figure;
  return {
    id,
    name,
    unit,
    measured: median(measured),
    baseline,
    against,
    judged,
    target: target ? ('atMost' in target ? `≤ ${short(target.atMost)}` : `≥ ${short(target.atLeast)}`) : null,
    margin: target ? marginOf(judged, target) : null,
    verdict: target ? (holds(judged, target) ? 'held' : 'missed') : 'informative',
  };
}

/** The worse end of the interval counts. */
function holds({ low, high }: Interval, target: Target): boolean {
  return 'atMost' in target ? high <= target.atMost : low >= target.atLeast;
}

function marginOf({ median, low, high }: Interval, target: Target): Interval {
  if ('atLeast' in target) {
    const { atLeast } = target;
    return { median: median / atLeast, low: low / atLeast, high: high / atLeast };
  }
  const { atMost } = target;
  return { median: atMost / median, low: atMost / high, high: atMost / low };
}

/** The rows as aligned text. */
export function table(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.id,
    row.name,
    `${short(row.measured)} ${row.unit}`,
    row.against === null ? '' : `${row.against} ${short(row.baseline!)}`,
    row.against === null ? '' : `${short(row.judged.median)} (${short(row.judged.low)} … ${short(row.judged.high)})`,
    row.target ?? '',
    row.verdict === 'informative' ? '' : row.verdict === 'held' ? 'held' : 'MISSED',
  ]);
  const lines = [['', 'measured', 'Plank', 'against', 'ratio (95 %)', 'target', ''], ...cells];
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Three digits that count. */
export function short(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString('en', { maximumFractionDigits: Math.min(digits, 4) });
}
