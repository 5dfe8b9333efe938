// Clients that do not keep up: who, by how much, and the end of one.

import { byId, element } from '../dom.js';
import { askAbout } from './explain.js';
import { isAlone } from './nodes.js';
import { ask, bytesText, countText, keptTable, msText, setText, showProblem, sureButton } from './parts.js';

const modes = { plain: 'plain WebSocket', 'plank.v1': 'WebSocket', events: 'event stream' };

let query;
let table;

export function startClients(plank, draw) {
  query = plank.table('clients').live({}, draw);
  table = keptTable(byId('clients'), [
    { label: 'Connection', text: ({ id }) => id },
    { label: 'Address', class: 'long', text: ({ address }) => address },
    { label: 'Kind', class: 'long', text: ({ mode }) => modes[mode] ?? mode },
    { label: 'Waits for it', class: 'number', text: ({ queuedBytes }) => bytesText(queuedBytes) },
    { label: 'Changes behind', class: 'number', text: ({ behind }) => countText(behind) },
    { label: 'Took nothing for', class: 'number', text: ({ stalledMs }) => msText(stalledMs) },
    { label: 'Actions', class: 'actions', isHidden: true, draw: drawActions },
  ]);
}

export function drawClients() {
  const rows = [...query.rows.values()].sort((a, b) => b.queuedBytes - a.queuedBytes);
  setText(byId('clients-count'), rows.length === 0 ? '' : String(rows.length));
  byId('clients-note').hidden = rows.length > 0;
  setText(byId('clients-note'), isAlone() ? 'Not known while Redis does not answer.' : 'Every client keeps up.');
  table(rows, ({ id }) => id);
}

function drawActions(cell, { id }) {
  if (cell.firstElementChild) return;
  const explain = element('button', { type: 'button', onclick: () => askAbout({ connection: id }) }, 'Explain');
  explain.setAttribute('aria-label', `Explain what ${id} gets`);
  const end = sureButton('Disconnect', 'Sure?', () => disconnect(id));
  end.setAttribute('aria-label', `Disconnect ${id}`);
  cell.append(explain, ' ', end);
}

async function disconnect(id) {
  const [node, number] = id.split('/');
  const { problem } = await ask(
    `ops/nodes/${encodeURIComponent(node)}/connections/${encodeURIComponent(number)}/disconnect`,
    {
      method: 'POST',
    },
  );
  showProblem(byId('clients-problem'), problem);
}
