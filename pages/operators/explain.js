// "Why did I not get it?": the form, and the answer. The answer shows step by step where a change went.

import { byId, element, setText, showProblem } from '../common/dom.js';
import { ask, keyText } from '../common/request.js';

const names = {
  captured: 'Captured',
  sequenced: 'Sequenced',
  published: 'Published',
  received: 'Received',
  matched: 'Matched',
  written: 'Written',
};
const states = { done: 'done', waiting: 'waiting', no: 'no', unknown: 'not known' };
/** the level of each state; each level has a pill of another shape */
const levels = { done: 'good', waiting: 'wait', no: 'off', unknown: 'unknown' };

export function startExplain() {
  byId('explain-form').addEventListener('submit', (event) => {
    event.preventDefault();
    explain();
  });
}

/** Fills in the form with the given values. If a position is given, also sends the form. */
export function askAbout(known) {
  const form = byId('explain-form');
  for (const [name, value] of Object.entries(known)) form.elements[name].value = value;
  if (known.pos) {
    form.elements.table.value = '';
    form.elements.id.value = '';
    explain();
  } else form.elements.pos.focus();
  form.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
}

async function explain() {
  const form = byId('explain-form');
  const query = new URLSearchParams();
  for (const name of ['pos', 'table', 'id', 'connection']) {
    const value = form.elements[name].value.trim();
    if (value !== '') query.set(name, value);
  }
  const button = form.querySelector('button');
  button.disabled = true;
  const { answer, problem, fields = {} } = await ask(`ops/explain?${query}`);
  button.disabled = false;
  for (const shown of form.querySelectorAll('[data-error]')) {
    const { error: name } = shown.dataset;
    setText(shown, fields[name] ?? '');
    form.elements[name].setAttribute('aria-invalid', String(name in fields));
  }
  const wrong = Object.keys(fields).find((name) => name in form.elements);
  showProblem(byId('explain-problem'), wrong ? undefined : problem);
  if (wrong) form.elements[wrong].focus();
  if (answer)
    byId('explained').replaceChildren(
      element('p', { class: 'say' }, answer.summary),
      ...answer.changes.map(drawChange),
    );
}

function drawChange({ pos, table, action, id, steps }) {
  return element(
    'div',
    { class: 'way' },
    element(
      'h3',
      {},
      element('span', { class: `badge ${action}` }, action),
      ` ${table} ${keyText(id)} `,
      element('span', { class: 'count' }, pos ?? 'no position yet'),
    ),
    element('ol', {}, ...steps.map(drawStep)),
  );
}

function drawStep({ step, state, text }) {
  return element(
    'li',
    {},
    element(
      'span',
      { class: 'pill', 'data-level': levels[state] ?? 'unknown' },
      names[step] ?? step,
      element('span', { class: 'hidden' }, `: ${states[state] ?? state}.`),
    ),
    element('span', {}, text),
  );
}
