// The one sentence at the top: whether changes arrive, as the gateway judges it, or that this page has lost the gateway.

import { byId, element } from '../dom.js';
import { secondsText, setText } from './parts.js';

let query;
let lostSince = null;
let node = 'the gateway';

export function startStatus(plank, draw) {
  query = plank.table('status').live({}, draw);
  plank.onState(({ status, node: name }) => {
    if (name) node = name;
    lostSince = status === 'open' ? null : (lostSince ?? Date.now());
    byId('node').textContent = node;
    draw();
  });
  // how long it has been lost
  setInterval(() => lostSince !== null && draw(), 1_000);
}

export function drawStatus() {
  const said = judge();
  byId('board').classList.toggle('stale', said.isStale ?? false);
  byId('status').dataset.level = said.level;
  setText(byId('status-text'), said.text);
  // said aloud when it becomes another, and not with each second or millisecond
  setText(byId('status-spoken'), said.level === 'good' ? 'All is well' : said.text.replace(/ \([^)]*\)$/, ''));
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
  const lostMs = lostSince === null ? 0 : Date.now() - lostSince;
  if (lostMs > 1_500) {
    const text = `${node}, which serves this page, does not answer (${secondsText(Math.floor(lostMs / 1_000))})`;
    return {
      level: 'bad',
      text,
      also: ['What is below is as it was then. Another gateway’s console may know more.'],
      isStale: true,
    };
  }
  return status ?? { level: 'unknown', text: 'Looking …' };
}
