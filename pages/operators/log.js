// The listeners, the log, and the numbers at the top.

import { byId, element, setText } from '../common/dom.js';
import { bytesText, countText, drawPill, keptTable, msText, secondsText } from './parts.js';

let table;

export function startLog() {
  table = keptTable(byId('listeners'), [
    { label: 'Listener', text: ({ node }) => node },
    { label: 'State', class: 'state-of', draw: (cell, row) => drawPill(cell, ...stateOf(row)) },
    { label: 'Term', class: 'number', text: ({ term }) => countText(term) },
    { label: 'Up', class: 'number', text: ({ startedAt }) => secondsText((Date.now() - startedAt) / 1_000) },
    { label: 'Version', class: 'version', text: ({ version }) => version },
  ]);
}

export function drawLog({ nodes, log, history }) {
  table(
    nodes.filter(({ role }) => role === 'listener'),
    ({ instance }) => instance,
    ({ silentSeconds }) => (silentSeconds > 0 ? 'gone' : ''),
  );
  const shown = byId('log');
  pairsOf(log).forEach(([name, text, level], at) => {
    const pair = shown.children[at] ?? shown.appendChild(element('div', {}, element('dt', {}, name), element('dd')));
    pair.dataset.level = level;
    setText(pair.lastElementChild, text);
  });
  const last = history.at(-1);
  setText(byId('fact-connections'), countText(last?.connections));
  setText(byId('fact-events'), countText(last?.events));
  setText(byId('fact-deliveries'), countText(last?.deliveries));
  setText(byId('fact-p50'), msText(last?.p50));
  setText(byId('fact-p99'), msText(last?.p99));
  setText(byId('fact-outbox'), countText(log.outboxDepth));
}

/** Returns the state of the log as lines, each with the members [name, text, level]. */
function pairsOf(log) {
  const isSilent = log.postgres === 'silent';
  return [
    ['Leader', isSilent ? '–' : (log.leader ?? 'none'), log.leader || isSilent ? '' : 'bad'],
    ['Waiting in the outbox', isSilent ? '–' : waitingText(log), log.waitingSeconds > 1 ? 'bad' : ''],
    ['Log', isSilent ? '–' : logText(log), ''],
    ['Stream', streamText(log), log.stream === 'silent' ? 'wait' : ''],
    ['Postgres', isSilent ? 'does not answer' : 'answers', isSilent ? 'bad' : ''],
  ];
}

function logText({ logEvents, logBytes, logOldestSeconds }) {
  return `${countText(logEvents)} changes, ${bytesText(logBytes)}, back to ${secondsText(logOldestSeconds)} ago`;
}

function streamText({ streamKind, streamEntries, streamBytes }) {
  const place = streamKind === 'memory' ? 'in memory' : 'in Redis';
  if (streamEntries === null) return 'Redis does not answer';
  return `${place}: ${countText(streamEntries)} batches, ${bytesText(streamBytes)}`;
}

function waitingText({ outboxDepth, outboxOldestSeconds }) {
  return outboxDepth === 0
    ? 'nothing'
    : `${countText(outboxDepth)} changes, the oldest for ${secondsText(outboxOldestSeconds)}`;
}

function stateOf({ silentSeconds, state }) {
  if (silentSeconds > 0) return ['bad', `silent ${secondsText(silentSeconds)}`];
  if (state === 'leading') return ['good', 'leads'];
  if (state === 'standby') return ['good', 'stands by'];
  return ['wait', state];
}
