// The clients that do not keep up: their names, how far each one is behind, and a button that disconnects it.

import { byId, element, setText, showProblem } from '../common/dom.js';
import { ask } from '../common/request.js';
import { sureButton } from '../common/sure-button.js';
import { askAbout } from './explain.js';
import { bytesText, countText, keptTable, msText, secondsText, unknownWhileAlone } from './parts.js';

const modes = { plain: 'plain WebSocket', 'plank.v1': 'WebSocket', events: 'event stream' };

let table;

export function startClients() {
  table = keptTable(byId('clients'), [
    { label: 'Connection', text: ({ id }) => id },
    { label: 'Address', class: 'long', text: ({ address }) => address },
    { label: 'Kind', class: 'long', text: ({ mode }) => modes[mode] ?? mode },
    { label: 'User', class: 'long', text: userText },
    { label: 'Token expires in', class: 'number', text: expiryText },
    { label: 'Send buffer', class: 'number', text: ({ queuedBytes }) => bytesText(queuedBytes) },
    { label: 'Changes behind', class: 'number', text: ({ behind }) => countText(behind) },
    { label: 'Read nothing for', class: 'number', text: ({ stalledMs }) => msText(stalledMs) },
    { label: 'Actions', class: 'actions', isHidden: true, draw: drawActions },
  ]);
}

export function drawClients({ clients, isAlone }) {
  const rows = clients.toSorted((a, b) => b.queuedBytes - a.queuedBytes);
  setText(byId('clients-count'), rows.length === 0 ? '' : String(rows.length));
  byId('clients-note').hidden = rows.length > 0;
  setText(byId('clients-note'), isAlone ? unknownWhileAlone : 'Every client keeps up.');
  table(rows, ({ id }) => id);
}

function userText({ user, role }) {
  return user ? `${user} (${role})` : (role ?? '–');
}

function expiryText({ expiresAt }) {
  return expiresAt ? secondsText(Math.max(0, expiresAt - Date.now() / 1_000)) : '–';
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
  const [node, number] = id.split('/').map(encodeURIComponent);
  const { problem } = await ask(`ops/nodes/${node}/connections/${number}/disconnect`, { method: 'POST' });
  showProblem(byId('clients-problem'), problem);
}
