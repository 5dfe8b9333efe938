// Changes as they come, as a client with the same filter gets them: through the SDK, on a connection of its own that is there
// only while somebody follows.

import { byId, clockText, element, oncePerFrame } from '../dom.js';
import { createPlank } from '../plank.js';
import { askAbout } from './explain.js';
import { exact, setText } from './parts.js';

const length = 100;
const everyTable = '';

let tables;
let plank = null;
let waiting = [];
let count = 0;

const draw = oncePerFrame(() => {
  const feed = byId('tail');
  feed.prepend(...waiting.map(drawEntry).reverse());
  waiting = [];
  while (feed.children.length > length) feed.lastElementChild.remove();
  setText(
    byId('tail-note'),
    plank ? `Following. ${count.toLocaleString('en')} have come.` : `Stopped. ${count.toLocaleString('en')} had come.`,
  );
});

export function startTail(operators, drawAll) {
  tables = operators.table('tables').live({}, drawAll);
  byId('tail-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (plank) stop();
    else follow();
  });
  byId('tail-table').addEventListener('change', drawFilter);
  drawFilter();
}

/** The tables there are, in both forms. */
export function drawTables() {
  for (const id of ['tail-table', 'explain-table']) {
    const select = byId(id);
    const known = new Set(Array.from(select.options, ({ value }) => value));
    for (const name of [...tables.rows.keys()].sort())
      if (!known.has(name)) select.append(element('option', { value: name }, name));
    for (const option of [...select.options])
      if (option.value !== '' && !tables.rows.has(option.value)) option.remove();
  }
}

function drawFilter() {
  const isEvery = byId('tail-table').value === everyTable;
  byId('tail-where').disabled = isEvery;
  byId('tail-where').placeholder = isEvery ? 'of one table' : '{"value": {"gt": 10}}';
}

function follow() {
  const name = byId('tail-table').value;
  const text = name === everyTable ? '' : byId('tail-where').value.trim();
  let where;
  try {
    where = text === '' ? undefined : JSON.parse(text);
  } catch {
    return fail('The filter is no JSON: {"column": value}, or {"column": {"gt": 10}}.');
  }
  fail('');
  count = 0;
  byId('tail').replaceChildren();
  plank = createPlank({ url: 'ws' });
  for (const each of name === everyTable ? tables.rows.keys() : [name]) {
    plank.table(each).subscribe(where === undefined ? {} : { where }, {
      onChange: (change) => {
        count += 1;
        add({ at: new Date(), change });
      },
      onResync: () => add({ line: `${each}: changes are missing here, they are no longer kept` }),
      onError: ({ message }) => {
        fail(message);
        if (name !== everyTable) stop();
      },
    });
  }
  show(true);
}

function stop() {
  plank?.close();
  plank = null;
  show(false);
}

function show(isFollowing) {
  setText(byId('tail-button'), isFollowing ? 'Stop' : 'Follow');
  byId('tail-table').disabled = isFollowing;
  if (isFollowing) byId('tail-where').disabled = true;
  else drawFilter();
  draw();
}

function fail(text) {
  setText(byId('tail-error'), text);
  byId('tail-where').setAttribute('aria-invalid', String(text !== ''));
}

function add(entry) {
  waiting.push(entry);
  if (waiting.length > length) waiting = waiting.slice(-length);
  draw();
}

function drawEntry({ at, line, change }) {
  if (line) return element('li', { class: 'gap' }, line);
  const { table, action, effect, id, data, pos } = change;
  const key = id !== null && typeof id === 'object' ? Object.values(id).join(', ') : id;
  const left = effect === 'remove' && action === 'UPDATE' ? ' left the filter' : '';
  return element(
    'li',
    { class: 'fresh' },
    element('span', { class: `badge ${action}` }, action),
    element('span', { class: 'what' }, `${action === 'TRUNCATE' ? table : `${table} ${key}`}${left}`),
    element('time', { datetime: at.toISOString() }, clockText(at)),
    element(
      'button',
      { type: 'button', class: 'pos', title: 'Where did it go?', onclick: () => askAbout({ pos }) },
      pos,
    ),
    ...(data === undefined ? [] : [element('code', { title: 'The row' }, JSON.stringify(data, exact))]),
  );
}
