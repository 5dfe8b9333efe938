// Shows the state of the page's connection in the header. live: the connection is open. stale: the server does not
// confirm that changes can arrive. reconnecting: the connection was lost. stopped: the server closed the connection for
// good.

import { byId } from '../common/dom.js';
import { showViewer } from './session.js';

let liveSince;
let wasLost = false;

export function startConnection(plank) {
  plank.onState((link) => {
    liveSince = link.status === 'open' ? (liveSince ?? Date.now()) : undefined;
    if (link.status === 'waiting') wasLost = true;
    byId('node').textContent = link.node ?? '–';
    drawUptime();
    if (link.status === 'open') showViewer(link.viewer);
    if (link.status === 'open' && link.freshness.isStale) setState('stale', 'Stale: changes may not arrive');
    else if (link.status === 'open') setState('live', 'Live');
    else if (link.status === 'closed') setState('stopped', `Stopped: ${link.reason || `code ${link.code}`}`);
    else if (wasLost) setState('reconnecting', 'Reconnecting');
  });
  setInterval(drawUptime, 1000);
}

/** Called if there is no table. Then there is no connection, because the SDK connects at the first subscription. */
export function showIdle() {
  if (liveSince === undefined && !wasLost) setState('idle', 'Not connected: no table is attached');
}

/** Called if the gateway refuses the page's token. The page may not have tried to connect, as it has no tables. */
export function showRefused() {
  if (liveSince === undefined) setState('stopped', 'Stopped: the token was refused');
}

function setState(state, text) {
  byId('state').dataset.state = state;
  byId('state-text').textContent = text;
}

function drawUptime() {
  const seconds = liveSince && Math.floor((Date.now() - liveSince) / 1000);
  byId('uptime').textContent = seconds === undefined ? '–' : durationText(seconds);
}

function durationText(seconds) {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part) => String(part).padStart(2, '0')).join(':');
}
