// The last changes, newest first, and the count of all that came. While paused, they wait undrawn.

import { byId, clockText, element } from './dom.js';

const length = 100;

let waiting = []; // entries that are not drawn yet, oldest first
let paused = false;
let count = 0;

/** `tables`: what somebody chose; undefined: the items. */
export function startFeed(tables) {
  if (tables) byId('feed-note').textContent = `Changes of ${tables.join(', ')} appear here, whoever makes them.`;
  byId('pause').addEventListener('click', () => {
    paused = !paused;
    byId('pause').setAttribute('aria-pressed', String(paused));
    byId('pause').textContent = 'Pause';
    drawFeed();
  });
}

export function showNothingFollowed() {
  byId('feed-note').textContent =
    'Nothing is followed. Add ?tables=orders to this page’s address to see changes of a table here.';
}

export function addChange(change) {
  count += 1;
  add({ at: new Date(), change });
}

/** A line across the feed. */
export function addLine(line) {
  add({ line });
}

export function drawFeed() {
  byId('changes').textContent = count.toLocaleString();
  if (paused) {
    const shown = waiting.length === length ? `${length}+` : waiting.length;
    byId('pause').textContent = waiting.length === 0 ? 'Resume' : `Resume (${shown} new)`;
    return;
  }
  const feed = byId('feed');
  feed.prepend(...waiting.map(drawEntry).reverse());
  waiting = [];
  while (feed.children.length > length) feed.lastElementChild.remove();
  byId('feed-note').hidden = feed.children.length > 0;
}

function add(entry) {
  waiting.push(entry);
  if (waiting.length > length) waiting = waiting.slice(-length);
}

function drawEntry({ at, line, change }) {
  if (line) return element('li', { class: 'gap' }, line);
  const { table, action, id, data } = change;
  const key = id !== null && typeof id === 'object' ? Object.values(id).join(', ') : id;
  return element(
    'li',
    { class: 'fresh' },
    element('span', { class: `badge ${action}` }, action),
    element('span', { class: 'what' }, action === 'TRUNCATE' ? table : `${table} ${key}`),
    element('time', { datetime: at.toISOString() }, clockText(at)),
    ...(data === undefined ? [] : [element('code', { title: 'The row' }, JSON.stringify(data))]),
  );
}
