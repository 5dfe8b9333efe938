// The sentence at the top. It says whether changes arrive, as the gateway judges. If the gateway no longer answers this
// page, the sentence says so.

import { byId, element, setText } from '../common/dom.js';
import { secondsText } from './parts.js';

/** The gateway sends its view each second. After this time without a view, it counts as silent. */
const silentMs = 4_000;

/** Draws the sentence. `heardAt` is the time when the view came, in ms since 1970. */
export function drawStatus(view, heardAt) {
  const verdict = judge(view, Date.now() - heardAt);
  setText(byId('node'), view?.node ?? '–');
  byId('board').classList.toggle('stale', verdict.isStale ?? false);
  byId('status').dataset.level = verdict.level;
  setText(byId('status-text'), verdict.text);
  // Screen readers read this text aloud when it changes. So the text leaves out the numbers, which change every second.
  setText(byId('status-spoken'), verdict.level === 'good' ? 'All is well' : verdict.text.replace(/ \([^)]*\)$/, ''));
  setText(byId('status-todo'), verdict.todo ?? '');
  const also = byId('status-also');
  const texts = verdict.also ?? [];
  while (also.children.length > texts.length) also.lastElementChild.remove();
  texts.forEach((text, at) => {
    const shown = also.children[at] ?? also.appendChild(element('li'));
    setText(shown, text);
  });
  const mark = { good: '✓', wait: '▲', bad: '✕' }[verdict.level] ?? '…';
  const title = `${mark} ${verdict.level === 'good' ? 'Plank console' : verdict.text}`;
  if (document.title !== title) document.title = title;
}

function judge(view, ms) {
  if (ms < silentMs) return view?.status ?? { level: 'unknown', text: 'Connecting …' };
  const node = view ? `${view.node}, which serves this page,` : 'The gateway';
  return {
    level: 'bad',
    text: `${node} does not answer (${secondsText(Math.floor(ms / 1_000))})`,
    todo: 'This page tries again. Behind a balancer, another gateway answers. Otherwise open another console.',
    also: view ? ['Everything below is as it was before.'] : [],
    isStale: true,
  };
}
