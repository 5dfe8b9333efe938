// The listeners, who of them leads, and the log between them and the gateways; and the numbers at the top.

import { byId, element } from '../dom.js';
import { byName, nodeRows } from './nodes.js';
import { bytesText, countText, drawPill, keptTable, msText, secondsText, setText } from './parts.js';

let log;
let history;
let table;

export function startLog(plank, draw) {
  log = plank.table('log').live({}, draw);
  history = plank.table('history').live({}, draw);
  table = keptTable(byId('listeners'), [
    { label: 'Listener', text: ({ node }) => node },
    { label: 'State', class: 'state-of', draw: (cell, row) => drawPill(cell, ...stateOf(row)) },
    { label: 'Term', class: 'number', text: ({ term }) => countText(term) },
    { label: 'Up', class: 'number', text: ({ startedAt }) => secondsText((Date.now() - startedAt) / 1_000) },
    { label: 'Version', class: 'version', text: ({ version }) => version },
  ]);
}

export const historyRows = () => [...(history?.rows.values() ?? [])].sort((a, b) => a.at - b.at);

export function drawLog() {
  table(
    nodeRows()
      .filter(({ role }) => role === 'listener')
      .sort(byName),
    ({ instance }) => instance,
    ({ silentSeconds }) => (silentSeconds > 0 ? 'gone' : ''),
  );
  const row = log.rows.get(1);
  if (!row) return;
  const pairs = [
    [
      'Leader',
      row.postgres === 'silent' ? '–' : (row.leader ?? 'nobody'),
      row.leader || row.postgres === 'silent' ? '' : 'bad',
    ],
    ['Waiting in the outbox', waitingText(row), row.waitingSeconds > 1 ? 'bad' : ''],
    [
      'Log',
      row.postgres === 'silent'
        ? '–'
        : `${countText(row.logEvents)} changes, ${bytesText(row.logBytes)}, back to ${secondsText(row.logOldestSeconds)} ago`,
      '',
    ],
    [
      'Stream',
      row.streamEntries === null
        ? 'does not answer'
        : `${countText(row.streamEntries)} batches, ${bytesText(row.streamBytes)}`,
      row.redis === 'silent' ? 'wait' : '',
    ],
    ['Postgres', row.postgres === 'silent' ? 'does not answer' : 'answers', row.postgres === 'silent' ? 'bad' : ''],
  ];
  const shown = byId('log');
  pairs.forEach(([name, text, level], at) => {
    const pair = shown.children[at] ?? shown.appendChild(element('div', {}, element('dt', {}, name), element('dd')));
    pair.dataset.level = level;
    setText(pair.lastElementChild, text);
  });
  drawFacts(row);
}

function waitingText({ outboxDepth, outboxOldestSeconds, postgres }) {
  if (postgres === 'silent') return '–';
  return outboxDepth === 0
    ? 'nothing'
    : `${countText(outboxDepth)}, the oldest for ${secondsText(outboxOldestSeconds)}`;
}

function drawFacts({ outboxDepth }) {
  const last = historyRows().at(-1);
  setText(byId('fact-connections'), countText(last?.connections));
  setText(byId('fact-events'), countText(last?.events));
  setText(byId('fact-deliveries'), countText(last?.deliveries));
  setText(byId('fact-p50'), msText(last?.p50));
  setText(byId('fact-p99'), msText(last?.p99));
  setText(byId('fact-outbox'), countText(outboxDepth));
}

function stateOf({ silentSeconds, state }) {
  if (silentSeconds > 0) return ['bad', `silent ${secondsText(silentSeconds)}`];
  if (state === 'leading') return ['good', 'leads'];
  if (state === 'standby') return ['good', 'stands by'];
  return ['wait', state];
}
