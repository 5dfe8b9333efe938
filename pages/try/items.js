// The rows of the table items, as the live query has them: each drawing compares what is shown with what is there. A row that
// is being edited stays as its editor left it. Where there is no table items, or one that is not the sample, nothing can be written.

import { byId, element, timeText } from './dom.js';

const maxShown = 1_000;

let query;
const drawnRows = new Map(); // id → { row, shown }, its <tr>
let marksFresh = false; // the first drawing marks nothing as new

export function startItems(given) {
  query = given;
  query.ready.then(drawItems, drawItems);
}

export const itemOf = (id) => query.rows.get(id);
export const drawnRowOf = (id) => drawnRows.get(id)?.shown;

/** Resolves when the table shows what a write of ours was answered with, or something newer. */
export function hasCome(answered) {
  const isHere = () => !itemOf(answered.id) || itemOf(answered.id).updated_at >= answered.updated_at;
  return new Promise((resolve) => {
    const timer = setTimeout(done, 2_000); // the connection may be lost
    const end = query.subscribe(() => isHere() && done());
    function done() {
      clearTimeout(timer);
      end();
      resolve();
    }
    if (isHere()) done();
  });
}

export function showProblem(text) {
  const shown = byId('problem');
  shown.textContent = text ?? '';
  shown.hidden = !text;
}

export function drawItems() {
  const missing = whatIsMissing();
  byId('create').hidden = byId('items-table').hidden = missing !== undefined;
  const rows = missing ? new Map() : newest();
  for (const [id, { shown }] of drawnRows) {
    if (rows.has(id)) continue;
    const isGone = !query.rows.has(id);
    if (isGone && isEdited(shown)) showProblem(`Somebody deleted the item ${id} while you edited it.`);
    shown.remove();
    drawnRows.delete(id);
  }
  for (const [id, row] of rows) drawRow(id, row);
  marksFresh ||= query.state === 'live';
  byId('items-count').textContent = query.rows.size === 0 ? '' : query.rows.size.toLocaleString();
  drawNote(missing);
}

/** Draws a row again as it is; one that was being edited is no longer. */
export function redrawRow(id) {
  const drawn = drawnRows.get(id);
  if (!drawn) return;
  drawn.shown.classList.remove('editing');
  drawn.row = undefined;
  drawItems();
}

/** Puts `shown` where the row is or belongs, newest first. The focus stays on the button it was on. */
export function placeRow(row, shown) {
  const before = drawnRows.get(row.id)?.shown;
  if (before) {
    const focused = before.contains(document.activeElement) ? document.activeElement.dataset.role : undefined;
    before.replaceWith(shown);
    if (focused) shown.querySelector(`[data-role="${focused}"]`)?.focus();
  } else {
    const body = byId('items');
    body.insertBefore(shown, firstBelow(body, row.id));
  }
  drawnRows.set(row.id, { row, shown });
}

export function noteOnRow(shown, text) {
  const note = shown.querySelector('.row-note');
  if (note) note.textContent = text;
}

const isEdited = (shown) => shown.classList.contains('editing');

/** The rows to show: those with the highest ids, where there are more. */
function newest() {
  if (query.rows.size <= maxShown) return query.rows;
  return new Map([...query.rows].sort(([a], [b]) => b - a).slice(0, maxShown));
}

function drawRow(id, row) {
  const drawn = drawnRows.get(id);
  if (drawn && isSame(drawn.row, row)) return;
  if (drawn && isEdited(drawn.shown)) {
    drawn.row = row;
    // while it is being saved, the change is most likely our own
    if (!drawn.shown.classList.contains('saving'))
      noteOnRow(drawn.shown, 'Somebody changed it meanwhile. Save replaces what you changed.');
    return;
  }
  const shown = rowElement(row);
  if (marksFresh) shown.classList.add('fresh');
  placeRow(row, shown);
}

/** Rows that were read anew are other objects, mostly with the same in them. */
const isSame = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

/** Why this page cannot show the sample. */
function whatIsMissing() {
  if (query.error?.code === 'UNKNOWN_TABLE')
    return "No table “items” is attached. Attach one of yours in the database, for example: select plank.attach('orders'); then see its changes with ?tables=orders behind this page’s address.";
  const [row] = query.rows.values();
  if (row && !(Number.isSafeInteger(row.id) && typeof row.name === 'string' && 'value' in row && 'updated_at' in row))
    return 'The table “items” here is not the sample that this page edits. Its changes are in the live feed.';
  return undefined;
}

function drawNote(missing) {
  const { rows, error, state } = query;
  let text = '';
  if (missing) text = missing;
  else if (error) text = `The items cannot be read: ${error.message}`;
  else if (!marksFresh && state !== 'live') text = 'Reading the items…';
  else if (rows.size > maxShown) text = `Only the newest ${maxShown.toLocaleString()} items are shown.`;
  else if (rows.size === 0) text = 'There are no items yet. Add one above.';
  byId('items-note').textContent = text;
}

/** New rows go to the top, so this rarely looks at more than one. */
function firstBelow(body, id) {
  for (const row of body.children) {
    if (Number(row.dataset.id) < id) return row;
  }
  return null;
}

function rowElement({ id, name, value, updated_at }) {
  return element(
    'tr',
    { 'data-id': id },
    element('td', { class: 'id' }, String(id)),
    element('td', {}, name),
    element('td', { class: 'number' }, value === null ? '–' : String(value)),
    element('td', { class: 'time', title: updated_at }, timeText(updated_at)),
    element(
      'td',
      { class: 'actions' },
      element('button', { 'data-role': 'edit', 'aria-label': `Edit ${name}` }, 'Edit'),
      element('button', { 'data-role': 'delete', 'aria-label': `Delete ${name}` }, 'Delete'),
    ),
  );
}
