// Owns the pictures of the results: SVG by hand, with a background of its own, for light and dark pages.

import { type Row, short } from './report.ts';

interface Point {
  x: number;
  y: number;
}

interface Series {
  name: string;
  /** 0 … 4; series of one colour belong together */
  color: number;
  dashed?: boolean;
  points: readonly Point[];
}

export interface LinesOptions {
  title: string;
  /** what the axes are of; both are logarithmic */
  x: string;
  y: string;
  series: readonly Series[];
}

const width = 720;
const height = 400;
const area = { left: 64, right: 540, top: 48, bottom: 344 };

const light = ['#0b6bcb', '#c2410c', '#6b7280', '#15803d', '#7e22ce'];
const dark = ['#5eb0ff', '#fb923c', '#a1a8b3', '#4ade80', '#c084fc'];

const rules = (colors: readonly string[], ink: string, faint: string, paper: string) =>
  `.paper{fill:${paper}}text{fill:${ink}}.grid{stroke:${faint}}${colors
    .map((color, i) => `.line${i}{stroke:${color}}.fill${i}{fill:${color}}`)
    .join('')}`;
const style = `<style>text{font:13px system-ui,sans-serif}.title{font-size:15px;font-weight:600}.line{fill:none;stroke-width:2}.dashed{stroke-dasharray:5 4}${rules(light, '#1f2937', '#d1d5db', '#ffffff')}@media(prefers-color-scheme:dark){${rules(dark, '#e5e7eb', '#3b4250', '#14181f')}}</style>`;

/** Lines over logarithmic axes, with their names beside them. */
export function lines({ title, x, y, series }: LinesOptions): string {
  const points = series.flatMap((one) => one.points);
  const xAxis = logScale(
    points.map((point) => point.x),
    area.left,
    area.right,
  );
  const yAxis = logScale(
    points.map((point) => point.y),
    area.bottom,
    area.top,
  );
  const parts = [
    text(area.left, 26, title, 'class="title"'),
    ...xAxis.ticks.flatMap((tick) => [
      line(xAxis.at(tick), area.top, xAxis.at(tick), area.bottom),
      text(xAxis.at(tick), area.bottom + 20, short(tick), 'text-anchor="middle"'),
    ]),
    ...yAxis.ticks.flatMap((tick) => [
      line(area.left, yAxis.at(tick), area.right, yAxis.at(tick)),
      text(area.left - 8, yAxis.at(tick) + 4, short(tick), 'text-anchor="end"'),
    ]),
    text((area.left + area.right) / 2, area.bottom + 44, x, 'text-anchor="middle"'),
    text(area.left - 8, area.top - 8, y, 'text-anchor="end"'),
    ...series.flatMap((one, i) => {
      const at = one.points.map((point) => `${fixed(xAxis.at(point.x))},${fixed(yAxis.at(point.y))}`);
      const kind = `class="line line${one.color}${one.dashed ? ' dashed' : ''}"`;
      const level = area.top + 8 + 24 * i;
      return [
        `<polyline ${kind} points="${at.join(' ')}"/>`,
        ...at.map((pair) => `<circle class="fill${one.color}" r="3" cx="${pair.replace(',', '" cy="')}"/>`),
        `<path ${kind} d="M${area.right + 16} ${level}h28"/>`,
        text(area.right + 52, level + 4, one.name),
      ];
    }),
  ];
  return svg(title, parts, height);
}

const rowHeight = 24;

/** How far each target was held, as a factor over a logarithmic axis; what is left of the line at 1 was missed. */
export function margins(rows: readonly Row[]): string {
  const judged = rows.flatMap((row) =>
    row.margin && Number.isFinite(row.margin.high) ? [{ ...row, margin: row.margin }] : [],
  );
  const [left, right] = [450, width - 24];
  const bottom = 72 + rowHeight * judged.length;
  const axis = logScale([0.5, ...judged.flatMap(({ margin }) => [margin.low, margin.high])], left, right);
  const title = 'How many times better than its target';
  const parts = [
    text(24, 26, title, 'class="title"'),
    ...axis.ticks.flatMap((tick) => [
      line(axis.at(tick), 44, axis.at(tick), bottom),
      text(axis.at(tick), bottom + 20, short(tick), 'text-anchor="middle"'),
    ]),
    `<path class="line line2" d="M${fixed(axis.at(1))} 44V${bottom}"/>`,
    ...judged.flatMap(({ id, name, against, target, verdict, margin }, i) => {
      const y = 68 + rowHeight * i;
      const color = verdict === 'held' ? 3 : 1;
      const words = `${id}  ${name}${against === null ? '' : ` ÷ ${against}`} ${target}`;
      return [
        text(24, y + 4, words.length > 58 ? `${words.slice(0, 57)}…` : words),
        `<path class="line line${color}" d="M${fixed(axis.at(margin.low))} ${y}H${fixed(axis.at(margin.high))}"/>`,
        `<circle class="fill${color}" r="4" cx="${fixed(axis.at(margin.median))}" cy="${y}"/>`,
      ];
    }),
  ];
  return svg(title, parts, bottom + 40);
}

function svg(title: string, parts: readonly string[], height: number): string {
  const open = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`;
  return `${open}\n<title>${escaped(title)}</title>\n${style}\n<rect class="paper" width="${width}" height="${height}" rx="8"/>\n${parts.join('\n')}\n</svg>\n`;
}

/** From one power of ten to another, around all values; ticks at each. */
function logScale(values: readonly number[], from: number, to: number) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  return {
    ticks: Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i)),
    at: (value: number) => from + ((Math.log10(value) - low) / (high - low)) * (to - from),
  };
}

const fixed = (value: number) => value.toFixed(1);
const line = (x1: number, y1: number, x2: number, y2: number) =>
  `<line class="grid" x1="${fixed(x1)}" y1="${fixed(y1)}" x2="${fixed(x2)}" y2="${fixed(y2)}"/>`;
const text = (x: number, y: number, words: string, attributes = '') =>
  `<text x="${fixed(x)}" y="${fixed(y)}" ${attributes}>${escaped(words)}</text>`;
const escaped = (words: string) => words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
