// The rows of the table items as this page knows them, and their drawing. Three sources say what a row is: the list, the
// changes, and the answers to what this page wrote. Changes and the list come in order and always win; an answer may be
// late, so it counts only where nothing newer is known.

import { byId, element, timeText } from './dom.js';

const maxGone = 1_000;

const items = new Map(); // id → row
const drawnRows = new Map(); // id → its <tr>
const touched = new Set(); // ids to draw
const gone = new Set(); // the ids deleted last
let cleared = false;
let limit; // of the list, where the table holds more than that
let wasListed = false;
let marksFresh = false; // the first drawing marks nothing as new
let problem = '';

export const itemOf = (id) => items.get(id);
export const drawnRowOf = (id) => drawnRows.get(id);

export function applyChange({ action, id, data }) {
  if (action === 'TRUNCATE') {
    items.clear();
    cleared = true;
  } else if (action === 'DELETE') {
    items.delete(id);
    touched.add(id);
    gone.add(id);
    if (gone.size > maxGone) gone.delete(gone.values().next().value);
  } else {
    items.set(id, data);
    touched.add(id);
    gone.delete(id);
  }
}

/** What the server answered to a write of ours. Others may have changed the row again, and their change may be here. */
export function applyAnswer(row) {
  const known = items.get(row.id);
  if (gone.has(row.id) || (known && known.updated_at >= row.updated_at)) return;
  applyChange({ action: 'UPDATE', id: row.id, data: row });
}

/** `truncatedAt`: how many rows were asked for, where there are more. */
export function applyList(rows, truncatedAt) {
  limit = truncatedAt;
  wasListed = true;
  problem = '';
  const present = new Set(rows.map((row) => row.id));
  for (const id of items.keys()) {
    if (!present.has(id)) applyChange({ action: 'DELETE', id });
  }
  for (const row of rows) {
    if (items.get(row.id)?.updated_at !== row.updated_at) applyChange({ action: 'INSERT', id: row.id, data: row });
  }
}

/** Says below the table why it is not current; the next list takes it away. */
export function showListProblem(text) {
  problem = text;
  drawNote();
}

export function showProblem(text) {
  const shown = byId('problem');
  shown.textContent = text ?? '';
  shown.hidden = !text;
}

export function drawItems() {
  if (cleared) {
    cleared = false;
    for (const id of drawnRows.keys()) touched.add(id);
  }
  const body = byId('items');
  for (const id of touched) {
    const row = items.get(id);
    const shown = drawnRows.get(id);
    const editing = shown?.classList.contains('editing');
    if (row === undefined) {
      if (editing) showProblem(`Somebody deleted the item ${id} while you edited it.`);
      shown?.remove();
      drawnRows.delete(id);
    } else if (editing) {
      // while it is being saved, the change is most likely our own
      if (!shown.classList.contains('saving'))
        noteOnRow(shown, 'Somebody changed it meanwhile. Save replaces what you changed.');
    } else {
      const drawn = drawRow(row);
      if (marksFresh) drawn.classList.add('fresh');
      placeRow(body, id, drawn);
    }
  }
  touched.clear();
  marksFresh = wasListed;
  byId('items-count').textContent = items.size === 0 ? '' : `${items.size}${limit ? '+' : ''}`;
  drawNote();
}

/** Draws a row again as it is; one that was being edited is no longer. */
export function redrawRow(id) {
  drawnRows.get(id)?.classList.remove('editing');
  touched.add(id);
  drawItems();
}

/** Puts `drawn` where the row `id` is or belongs, newest first. The focus stays on the button it was on. */
export function placeRow(body, id, drawn) {
  const shown = drawnRows.get(id);
  if (shown) {
    const focused = shown.contains(document.activeElement) ? document.activeElement.dataset.role : undefined;
    shown.replaceWith(drawn);
    if (focused) drawn.querySelector(`[data-role="${focused}"]`)?.focus();
  } else {
    body.insertBefore(drawn, firstBelow(body, id));
  }
  drawnRows.set(id, drawn);
}

export function noteOnRow(row, text) {
  const note = row.querySelector('.row-note');
  if (note) note.textContent = text;
}

function drawNote() {
  let text = 'Reading the items…';
  if (problem) text = problem;
  else if (limit) text = `Only the first ${limit} items and new ones are shown.`;
  else if (wasListed) text = items.size === 0 ? 'There are no items yet. Add one above.' : '';
  byId('items-note').textContent = text;
}

/** New rows go to the top, so this rarely looks at more than one. */
function firstBelow(body, id) {
  for (const row of body.children) {
    if (Number(row.dataset.id) < id) return row;
  }
  return null;
}

function drawRow({ id, name, value, updated_at }) {
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
