// The page's one WebSocket, and what the header says of it. connecting → live ⇄ reconnecting, by the socket's open and
// close; stopped, for good, by a close code 44xx: the server says that coming back is of no use.

import { byId } from './dom.js';

export const backoff = { minMs: 500, maxMs: 20_000 };
const openTimeoutMs = 10_000;
const stableAfterMs = 30_000;

let socket;
let state = 'connecting';
let failures = 0;
let retryTimer;
let liveSince;
let handlers;

/** `onLive` gets each socket once it is open, `onChange` each change of the current one. */
export function startConnection(given) {
  handlers = given;
  window.addEventListener('online', reconnectNow);
  document.addEventListener('visibilitychange', () => !document.hidden && reconnectNow());
  // a socket over a lost network looks open for minutes
  window.addEventListener('offline', () => socket.close());
  setInterval(drawUptime, 1000);
  connect();
}

export const isCurrent = (one) => one === socket && one.readyState === WebSocket.OPEN;

function connect() {
  clearTimeout(retryTimer);
  const asker = Math.random().toString(36).slice(2);
  const url = new URL(`ws?whoami=${asker}`, document.baseURI);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const mine = new WebSocket(url);
  socket = mine;
  // a network that swallows packets would leave this attempt hanging for minutes
  const deadline = setTimeout(() => mine.close(), openTimeoutMs);

  mine.addEventListener('open', () => {
    clearTimeout(deadline);
    liveSince = Date.now();
    byId('node').textContent = takeNode(asker);
    drawUptime();
    setState('live', 'Live');
    handlers.onLive(mine);
  });
  mine.addEventListener('message', ({ data }) => {
    if (socket === mine) handlers.onChange(JSON.parse(data));
  });
  mine.addEventListener('close', ({ code, reason }) => {
    clearTimeout(deadline);
    if (socket !== mine) return;
    if (liveSince && Date.now() - liveSince > stableAfterMs) failures = 0;
    liveSince = undefined;
    byId('node').textContent = '–';
    byId('uptime').textContent = '–';
    if (code >= 4400 && code < 4500) setState('stopped', `Stopped: ${reason || `code ${code}`}`);
    else reconnectLater();
  });
}

/** Who serves this socket: the upgrade's answer says it in a cookie whose name we chose. */
function takeNode(asker) {
  const node = new RegExp(`(?:^|; )plank_node_${asker}=([^;]*)`).exec(document.cookie)?.[1];
  document.cookie = `plank_node_${asker}=; Path=/; Max-Age=0; SameSite=Strict`;
  return node ?? 'unknown';
}

function reconnectLater() {
  const ceiling = Math.min(backoff.maxMs, backoff.minMs * 2 ** failures++);
  setState('reconnecting', 'Reconnecting');
  retryTimer = setTimeout(connect, backoff.minMs / 2 + Math.random() * ceiling);
}

/** Nobody should wait out a backoff in front of a page that could connect now. */
function reconnectNow() {
  if (state === 'reconnecting' && socket.readyState === WebSocket.CLOSED) connect();
}

function setState(next, text) {
  state = next;
  byId('state').dataset.state = next;
  byId('state-text').textContent = text;
}

function drawUptime() {
  if (!liveSince) return;
  const seconds = Math.floor((Date.now() - liveSince) / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  byId('uptime').textContent = shown.map((part) => String(part).padStart(2, '0')).join(':');
}
