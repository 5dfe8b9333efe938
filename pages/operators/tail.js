// Live changes, as a client with the same filter gets them. They come through the SDK, on a connection of their own,
// which is open only while somebody follows the changes.

import { byId, element, oncePerFrame, setText } from '../common/dom.js';
import { Feed } from '../common/feed.js';
import { createPlank } from '../plank.js';
import { askAbout } from './explain.js';

const everyTable = '';

let feed;
let tables = [];
let plank = null;
let count = 0;

const draw = oncePerFrame(() => {
  feed.draw();
  const changes = `${count.toLocaleString('en')} ${count === 1 ? 'change' : 'changes'}`;
  setText(byId('tail-note'), plank ? `Following: ${changes} so far.` : `Stopped after ${changes}.`);
});

export function startTail() {
  feed = new Feed(byId('tail'));
  byId('tail-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (plank) stop();
    else follow();
  });
  byId('tail-table').addEventListener('change', drawFilter);
  drawFilter();
}

/** Offers the attached tables in both forms. */
export function drawTables(view) {
  tables = view.tables;
  for (const id of ['tail-table', 'explain-table']) {
    const select = byId(id);
    const offered = Array.from(select.options, ({ value }) => value);
    for (const name of tables.filter((name) => !offered.includes(name)))
      select.append(element('option', { value: name }, name));
    for (const option of [...select.options])
      if (option.value !== '' && !tables.includes(option.value)) option.remove();
  }
}

function drawFilter() {
  const isEvery = byId('tail-table').value === everyTable;
  byId('tail-where').disabled = isEvery;
  byId('tail-where').placeholder = isEvery ? 'pick a table first' : '{"value": {"gt": 10}}';
}

function follow() {
  const name = byId('tail-table').value;
  const text = name === everyTable ? '' : byId('tail-where').value.trim();
  let where;
  try {
    where = text === '' ? undefined : JSON.parse(text);
  } catch {
    return fail('The filter is not JSON. Write {"column": value} or {"column": {"gt": 10}}.');
  }
  fail('');
  count = 0;
  feed.clear();
  plank = createPlank({ url: 'ws' });
  for (const each of name === everyTable ? tables : [name]) {
    plank.table(each).subscribe(where === undefined ? {} : { where }, {
      onChange: (change) => {
        count += 1;
        const { action, effect, pos } = change;
        const note = effect === 'remove' && action === 'UPDATE' ? ' left the filter' : '';
        const explain = {
          type: 'button',
          class: 'pos',
          title: 'Explain where it went',
          onclick: () => askAbout({ pos }),
        };
        feed.addChange(change, { note, extra: [element('button', explain, pos)] });
        draw();
      },
      onResync: () => {
        feed.addLine(`${each}: some changes are missing here, because they are no longer kept.`);
        draw();
      },
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
