// The one sentence at the top: whether changes arrive, as the gateway judges it, or that this page has lost the gateway.

import { byId, element } from '../dom.js';
import { secondsText, setText } from './parts.js';

/** the gateway says something each second */
const silentMs = 5_000;

let query;
let heardAt = null;
let lostSince = null;
let node = 'the gateway';

export function startStatus(plank, draw) {
  query = plank.table('status').live({}, () => {
    heardAt = Date.now();
    draw();
  });
  plank.onState(({ status, node: name }) => {
    if (name) node = name;
    lostSince = status === 'open' ? null : (lostSince ?? Date.now());
    byId('node').textContent = node;
    draw();
  });
  // for how long it has been lost, or has said nothing
  setInterval(draw, 1_000);
}

export function drawStatus() {
  const said = judge();
  byId('board').classList.toggle('stale', said.isStale ?? false);
  byId('status').dataset.level = said.level;
  setText(byId('status-text'), said.text);
  // said aloud when it becomes another, and not with each second or millisecond
  setText(byId('status-spoken'), said.level === 'good' ? 'All is well' : said.text.replace(/ \([^)]*\)$/, ''));
  setText(byId('status-todo'), said.todo ?? '');
  const also = byId('status-also');
  const texts = said.also ?? [];
  while (also.children.length > texts.length) also.lastElementChild.remove();
  texts.forEach((text, at) => {
    const shown = also.children[at] ?? also.appendChild(element('li'));
    setText(shown, text);
  });
  const mark = { good: '✓', wait: '▲', bad: '✕' }[said.level] ?? '…';
  const title = `${mark} ${said.level === 'good' ? 'Plank console' : said.text}`;
  if (document.title !== title) document.title = title;
}

function judge() {
  const status = query.rows.get(1);
  const now = Date.now();
  // a connection that hangs looks open for long
  const hangsSince = heardAt !== null && now - heardAt > silentMs ? heardAt : null;
  const since = lostSince ?? hangsSince;
  const lostMs = since === null ? 0 : now - since;
  if (lostMs > 1_500) {
    const text = `${node}, which serves this page, does not answer (${secondsText(Math.floor(lostMs / 1_000))})`;
    return {
      level: 'bad',
      text,
      todo: 'Load this page again: behind a balancer, another gateway answers. Otherwise open the console of another.',
      also: ['What is below is as it was then.'],
      isStale: true,
    };
  }
  return status ?? { level: 'unknown', text: 'Looking …' };
}
