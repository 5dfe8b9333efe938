// The gateways: what each carries, how it fares, and the wish to drain it.

import { byId, element } from '../dom.js';
import {
  ask,
  bytesText,
  countText,
  drawPill,
  keptTable,
  msText,
  secondsText,
  setText,
  showProblem,
  sureButton,
} from './parts.js';

let query;
let table;

export function startNodes(plank, draw) {
  query = plank.table('nodes').live({}, draw);
  table = keptTable(byId('gateways'), [
    { label: 'Gateway', text: ({ node }) => node },
    { label: 'State', class: 'state-of', draw: (cell, row) => drawPill(cell, ...stateOf(row)) },
    { label: 'Clients', class: 'number', text: ({ connections }) => countText(connections) },
    { label: 'Share', class: 'share', draw: drawShare },
    { label: 'Changes/s', class: 'number', text: ({ eventsPerSecond }) => countText(eventsPerSecond) },
    { label: 'Deliveries/s', class: 'number', text: ({ deliveriesPerSecond }) => countText(deliveriesPerSecond) },
    { label: '99 % within', class: 'number', text: ({ lag }) => msText(lag?.p99) },
    { label: 'Behind', class: 'number', text: ({ behind }) => countText(behind) },
    { label: 'Waits for clients', class: 'number', text: ({ queuedBytes }) => bytesText(queuedBytes) },
    { label: 'Memory', class: 'number', text: ({ rss }) => bytesText(rss) },
    { label: 'Up', class: 'number', text: ({ startedAt }) => secondsText((Date.now() - startedAt) / 1_000) },
    { label: 'Version', class: 'version', text: ({ version }) => version },
    { label: 'Actions', class: 'actions', isHidden: true, draw: drawActions },
  ]);
}

/** Whether the gateway that serves this page cannot hear the others: of what they would tell, nothing is known. */
export const isAlone = () => nodeRows().some(({ alone }) => alone);

export const nodeRows = () => [...(query?.rows.values() ?? [])].sort(byName);

export function drawNodes() {
  const gateways = nodeRows().filter(({ role }) => role === 'gateway');
  setText(byId('gateways-count'), gateways.length === 0 ? '' : String(gateways.length));
  table(
    gateways,
    ({ instance }) => instance,
    ({ silentSeconds }) => (silentSeconds > 0 ? 'gone' : ''),
  );
}

export const byName = (a, b) => a.node.localeCompare(b.node, 'en', { numeric: true });

function stateOf({ silentSeconds, connections, draining, ready, reason, staleReason, changes, slow }) {
  if (silentSeconds > 0) return ['bad', `silent ${secondsText(silentSeconds)}`];
  if (draining && reason === 'stopping') return ['wait', 'stopping'];
  if (draining) return ['wait', connections === 0 ? 'drained' : 'draining'];
  if (!ready) return ['bad', 'not ready'];
  if (staleReason) return ['bad', 'stale'];
  if (changes === 'reading') return ['wait', 'reads the log'];
  return slow > 0 ? ['wait', `${slow} slow`] : ['good', 'serving'];
}

function drawShare(cell, { share }) {
  const meter =
    cell.querySelector('progress') ??
    cell.appendChild(element('progress', { max: 1, 'aria-label': 'Share of all clients' }));
  const text = cell.querySelector('span') ?? cell.appendChild(element('span'));
  meter.value = share ?? 0;
  // not known where the others cannot be heard
  setText(text, share === null ? '–' : `${Math.round(share * 100)} %`);
}

function drawActions(cell, { node, draining, reason, silentSeconds, alone, drainWarning }) {
  const wish = draining ? 'undrain' : 'drain';
  // wishes go over Redis
  const isMute = silentSeconds > 0 || alone || reason === 'stopping';
  let button = cell.querySelector('button');
  if (button?.dataset.wish !== wish) {
    const made = draining
      ? element('button', { type: 'button', onclick: () => pass(node, wish) }, 'Undrain')
      : sureButton(
          'Drain',
          'Sure?',
          () => pass(node, wish),
          // below the table, so that the button stays where it was pressed
          (asks) => showProblem(byId('gateways-warning'), asks ? made.dataset.warning : ''),
        );
    made.dataset.wish = wish;
    made.setAttribute('aria-label', `${draining ? 'Undrain' : 'Drain'} ${node}`);
    const hadFocus = button !== null && button === document.activeElement;
    if (button) button.replaceWith(made);
    else cell.append(made);
    if (hadFocus) made.focus();
    button = made;
  }
  button.disabled = isMute;
  button.dataset.warning = drainWarning ?? '';
}

async function pass(node, wish) {
  const { problem, answer } = await ask(`ops/nodes/${encodeURIComponent(node)}/${wish}`, { method: 'POST' });
  showProblem(byId('gateways-problem'), problem);
  showProblem(byId('gateways-warning'), answer?.warning);
}
