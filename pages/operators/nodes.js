// The gateways: the load and the state of each gateway, and a button that drains it.

import { byId, element, setText, showProblem } from '../common/dom.js';
import { ask } from '../common/request.js';
import { sureButton } from '../common/sure-button.js';
import { bytesText, countText, drawPill, keptTable, msText, secondsText } from './parts.js';

let table;

export function startNodes() {
  table = keptTable(byId('gateways'), [
    { label: 'Gateway', text: ({ node }) => node },
    { label: 'State', class: 'state-of', draw: (cell, row) => drawPill(cell, ...stateOf(row)) },
    { label: 'Clients', class: 'number', text: ({ connections }) => countText(connections) },
    { label: 'Share', class: 'share', draw: drawShare },
    { label: 'Changes/s', class: 'number', text: ({ eventsPerSecond }) => countText(eventsPerSecond) },
    { label: 'Deliveries/s', class: 'number', text: ({ deliveriesPerSecond }) => countText(deliveriesPerSecond) },
    { label: 'p99', class: 'number', text: ({ lag }) => msText(lag?.p99) },
    { label: 'Behind', class: 'number', text: ({ behind }) => countText(behind) },
    { label: 'Send buffer', class: 'number', text: ({ queuedBytes }) => bytesText(queuedBytes) },
    { label: 'Memory', class: 'number', text: ({ rss }) => bytesText(rss) },
    { label: 'Up', class: 'number', text: ({ startedAt }) => secondsText((Date.now() - startedAt) / 1_000) },
    { label: 'Version', class: 'version', text: ({ version }) => version },
    { label: 'Actions', class: 'actions', isHidden: true, draw: drawActions },
  ]);
}

export function drawNodes({ nodes, isAlone }) {
  const gateways = nodes.filter(({ role }) => role === 'gateway').map((node) => ({ ...node, isAlone }));
  const silent = gateways.filter(({ silentSeconds }) => silentSeconds > 0).length;
  const counts = [String(gateways.length - silent), silent > 0 && `${silent} silent`].filter(Boolean);
  setText(byId('gateways-count'), counts.join(', '));
  drawOpen(gateways.filter(({ auth }) => auth === 'off').map(({ node }) => node));
  table(
    gateways,
    ({ instance }) => instance,
    ({ silentSeconds }) => (silentSeconds > 0 ? 'gone' : ''),
  );
}

/** `open`: the names of the gateways that admit clients without a token. */
function drawOpen(open) {
  const who = 'everybody who reaches them may read and write all attached tables';
  const text = `Clients are not authenticated (AUTH=off) by ${open.join(', ')}: ${who}.`;
  byId('gateways-open').hidden = open.length === 0;
  setText(byId('gateways-open'), open.length === 0 ? '' : text);
}

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
  // null: the gateway is silent, or the gateway that serves this page gets no reports of other gateways
  setText(text, share === null ? '–' : `${Math.round(share * 100)} %`);
}

function drawActions(cell, { node, draining, reason, silentSeconds, isAlone, drainWarning }) {
  const action = draining ? 'undrain' : 'drain';
  let button = cell.querySelector('button');
  if (button?.dataset.action !== action) {
    const made = draining
      ? element('button', { type: 'button', onclick: () => send(node, action) }, 'Undrain')
      : sureButton(
          'Drain',
          'Sure?',
          () => send(node, action),
          // The warning is below the table, so that it does not move the button that was pressed.
          (asks) => showProblem(byId('gateways-warning'), asks ? made.dataset.warning : ''),
        );
    made.dataset.action = action;
    made.setAttribute('aria-label', `${draining ? 'Undrain' : 'Drain'} ${node}`);
    const hadFocus = button !== null && button === document.activeElement;
    if (button) button.replaceWith(made);
    else cell.append(made);
    if (hadFocus) made.focus();
    button = made;
  }
  // The button is disabled while its request cannot arrive. A request to another gateway goes through Redis.
  button.disabled = silentSeconds > 0 || isAlone || reason === 'stopping';
  button.dataset.warning = drainWarning ?? '';
}

async function send(node, action) {
  const { problem, answer } = await ask(`ops/nodes/${encodeURIComponent(node)}/${action}`, { method: 'POST' });
  showProblem(byId('gateways-problem'), problem);
  showProblem(byId('gateways-warning'), answer?.warning);
}
