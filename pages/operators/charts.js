// Throughput and lag of the last five minutes, drawn by uPlot. Each chart also has its highest value as text, for
// screen readers.

import { byId, setText } from '../common/dom.js';
import uPlot from '../uplot.js';
import { countText, msText } from './parts.js';

const spanSeconds = 300;
const height = 150;
/**
 * The possible steps of an axis. All steps of a count are whole numbers, because there is no half change. uPlot takes
 * the first step that leaves enough space between labels.
 */
const countSteps = Array.from({ length: 36 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));
const msSteps = [0.1, 0.2, 0.5, ...countSteps];

const charts = [];

export function startCharts() {
  const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  charts.push(
    makeChart('events', [{ of: 'events', stroke: colour('--update') }], countText, countSteps),
    makeChart('deliveries', [{ of: 'deliveries', stroke: colour('--accent') }], countText, countSteps),
    makeChart(
      'lag',
      [
        { of: 'p50', stroke: colour('--insert') },
        { of: 'p99', stroke: colour('--truncate'), dash: [5, 3] },
      ],
      msText,
      msSteps,
    ),
  );
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    for (const { plot } of charts) plot.redraw();
  });
}

export function drawCharts({ history }) {
  for (const chart of charts) chart.draw(history);
}

function makeChart(name, series, text, steps) {
  const place = byId(`chart-${name}`);
  const at = byId(`at-${name}`);
  let rows = [];
  const soft = () => getComputedStyle(document.documentElement).getPropertyValue('--soft').trim();
  const line = () => getComputedStyle(document.documentElement).getPropertyValue('--line').trim();
  const font = '11px system-ui, sans-serif';
  const show = (row) => setText(at, row ? series.map(({ of }) => text(row[of])).join(' / ') : '');
  const plot = new uPlot(
    {
      width: place.clientWidth || 300,
      height,
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false } },
      scales: {
        x: { time: true, range: () => [Date.now() / 1_000 - spanSeconds, Date.now() / 1_000] },
        y: { range: (_plot, _min, max) => [0, Math.max(1, (max ?? 0) * 1.15)] },
      },
      axes: [
        {
          stroke: soft,
          font,
          size: 26,
          grid: { stroke: line, width: 1 },
          ticks: { show: false },
          splits: () => [4, 3, 2, 1].map((minutes) => Date.now() / 1_000 - minutes * 60),
          values: () => ['−4 min', '−3 min', '−2 min', '−1 min'],
        },
        {
          stroke: soft,
          font,
          size: 46,
          incrs: steps,
          grid: { stroke: line, width: 1 },
          ticks: { show: false },
          values: (_plot, splits) => splits.map(shortText),
        },
      ],
      series: [
        {},
        ...series.map(({ stroke, dash }) => ({
          stroke,
          width: 1.5,
          points: { show: false },
          ...(dash ? { dash } : {}),
        })),
      ],
      hooks: { setCursor: [({ cursor: { idx } }) => show(rows[idx ?? rows.length - 1])] },
    },
    [[], ...series.map(() => [])],
    place,
  );
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height })).observe(place);
  return {
    plot,
    draw(given) {
      rows = given;
      plot.setData([rows.map((row) => row.at), ...series.map(({ of }) => rows.map((row) => row[of]))]);
      show(rows[plot.cursor.idx ?? rows.length - 1]);
      const most = Math.max(0, ...rows.map((row) => row[series.at(-1).of] ?? 0));
      place.setAttribute('aria-label', `At most ${text(most)} within the last five minutes`);
    },
  };
}

/** Shortens a number: 1,500 becomes 1.5k. */
function shortText(value) {
  if (value >= 1e6) return `${value / 1e6}M`;
  return value >= 1e3 ? `${value / 1e3}k` : String(value);
}
