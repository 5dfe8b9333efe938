// The rows of the picked table, as the live query has them. Each drawing compares the shown rows with the rows of the
// live query.

import { byId, element, longText, setText, showProblem, timeText } from '../common/dom.js';
import { jsonText, valueText } from '../common/request.js';
import { sureButton } from '../common/sure-button.js';
import { isTruncated } from '../plank.js';
import { editRow, openEditor, rowChanged, rowDeleted } from './editor.js';
import { canHaveSamples, insertSamples } from './samples.js';
import { token } from './session.js';
import { write } from './write.js';

/** the most rows that the page holds, and how many of them it shows */
const maxRows = 50_000;
const maxShown = 1_000;
/** how many characters of a value are shown without a click */
const maxText = 160;
/** if a value has more characters than this, its column is wide */
const wideText = 30;

let plank;
let requestDrawing;
let table = null;
let query = null;
let keyColumns = [];
let columns = []; // in the order of the table, but with the key columns first
let drawnVersion = -1;
let marksFresh = false; // the first drawing marks no row as new, because all rows are new then
const drawn = new Map(); // for each key, { row, shown }: the drawn row and its <tr>

export function startRows(givenPlank, draw) {
  plank = givenPlank;
  requestDrawing = draw;
  byId('insert-samples').addEventListener('click', async ({ target }) => {
    target.disabled = true;
    showProblem(byId('problem'), await insertSamples(table));
    target.disabled = false;
  });
}

/** Shows the rows of another table. Null: shows no rows. */
export function showRowsOf(given) {
  query?.close();
  table = given;
  query = null;
  drawn.clear();
  byId('rows').replaceChildren();
  byId('rows-table').hidden = byId('samples').hidden = true;
  setText(byId('rows-count'), '');
  showProblem(byId('problem'), '');
  openEditor(table);
  drawnVersion = -1;
  marksFresh = false;
  keyColumns = table?.key ?? [];
  const isKey = ({ name }) => Number(keyColumns.includes(name));
  columns = (table?.columns ?? []).toSorted((a, b) => isKey(b) - isKey(a));
  byId('columns').replaceChildren(
    ...columns.map(({ name, type }) => element('th', { scope: 'col', title: type }, name)),
    element('th', { scope: 'col', class: 'actions' }, element('span', { class: 'hidden' }, 'Actions')),
  );
  if (table) {
    query = plank.table(table.name).live({ where: {}, maxRows }, requestDrawing);
    query.ready.then(requestDrawing, requestDrawing);
  }
  requestDrawing();
}

/** If the query ended because its table was detached, opens the query again: the table may have been attached again. */
export function reviveRows() {
  if (query?.error?.code === 'UNKNOWN_TABLE') showRowsOf(table);
}

/** Returns the row that the page has before it applies a change; undefined if the page does not have the row. */
export function rowOf(name, id) {
  return name === table?.name ? query?.rows.get(mapKeyOf(id)) : undefined;
}

export function drawRows() {
  if (!query) return drawNote(noTableText());
  if (query.version === drawnVersion) return;
  drawnVersion = query.version;
  const keys = shownKeys();
  const isShown = new Set(keys);
  for (const [key, { shown }] of drawn) {
    if (isShown.has(key)) continue;
    shown.remove();
    drawn.delete(key);
    if (!query.rows.has(key)) rowDeleted(key);
  }
  let next = byId('rows').firstElementChild;
  for (const key of keys) {
    const shown = rowElement(key, query.rows.get(key));
    // `rowElement` may have replaced the <tr> that `next` refers to.
    if (next && !next.isConnected) next = shown;
    if (shown === next) next = next.nextElementSibling;
    else byId('rows').insertBefore(shown, next);
  }
  marksFresh ||= query.state === 'live';
  setText(byId('rows-count'), query.rows.size === 0 ? '' : query.rows.size.toLocaleString('en'));
  byId('rows-table').hidden = keys.length === 0;
  drawNote(noteText(keys.length));
  byId('samples').hidden = !(query.state === 'live' && query.rows.size === 0 && canHaveSamples(table));
}

/**
 * Returns the keys in the order in which rows are shown. Numbers are in descending order, so that new rows come first;
 * other keys are in ascending order.
 */
function shownKeys() {
  const keys = [...query.rows.keys()];
  const areNumbers = keys.every((key) => typeof key === 'number' || typeof key === 'bigint');
  if (areNumbers) keys.sort((a, b) => (a < b ? 1 : -1));
  else keys.sort((a, b) => (String(a) < String(b) ? -1 : 1));
  return keys.slice(0, maxShown);
}

/**
 * Returns the <tr> of a row. Makes another <tr> only if the row has changed, and keeps the focus on the same button.
 */
function rowElement(key, row) {
  const known = drawn.get(key);
  if (known && isSame(known.row, row)) return known.shown;
  const shown = makeRow(key, row);
  if (marksFresh) shown.classList.add('fresh');
  drawn.set(key, { row, shown });
  if (known) {
    const focused = known.shown.contains(document.activeElement) ? document.activeElement.dataset.role : undefined;
    known.shown.replaceWith(shown);
    if (focused) shown.querySelector(`[data-role="${focused}"]`)?.focus();
    rowChanged(key);
  }
  return shown;
}

/** Compares values and not objects: rows that were read again are other objects, but most have the same values. */
const isSame = (a, b) => a === b || jsonText(a) === jsonText(b);

function makeRow(key, row) {
  const name = keyColumns.map((column) => valueText(row[column])).join(', ');
  const address = addressOf(row, key);
  const edit = element('button', { type: 'button', 'data-role': 'edit', 'aria-label': `Edit ${name}` }, 'Edit');
  edit.addEventListener('click', () => editRow({ key, row, name, address }));
  const remove = sureButton('Delete', 'Sure?', async () => {
    const { problem, status } = await write('DELETE', address);
    // Status 404: somebody else has deleted the row already. The row disappears from the page when that change comes.
    showProblem(byId('problem'), status === 404 ? '' : problem);
  });
  remove.dataset.role = 'delete';
  remove.setAttribute('aria-label', `Delete ${name}`);
  return element(
    'tr',
    { 'data-key': String(key) },
    ...columns.map((column) => cellOf(column, row)),
    element('td', { class: 'actions' }, edit, ' ', remove),
  );
}

function cellOf({ name, type, isJson }, row) {
  const value = row[name];
  if (value === undefined && isTruncated(row))
    return element('td', { class: 'none', title: 'The row is too large to be sent' }, 'too large');
  if (value === null || value === undefined) return element('td', { class: 'none' }, '–');
  if (type.startsWith('timestamp') && typeof value === 'string')
    return element('td', { class: 'time', title: value }, timeText(value));
  const text = valueText(value);
  const kinds = {
    key: keyColumns.includes(name),
    number: typeof value === 'number' || typeof value === 'bigint',
    json: isJson && typeof value === 'object',
    wide: text.length > wideText,
  };
  const classes = Object.keys(kinds).filter((kind) => kinds[kind]);
  return element('td', { class: classes.join(' ') }, ...longText(text, maxText));
}

/**
 * Returns the row's key in the live query's map, in the form that the SDK uses: the value, or canonical JSON if the key
 * has several columns.
 */
function mapKeyOf(id) {
  if (id === null || typeof id !== 'object') return id;
  return jsonText(Object.fromEntries(Object.entries(id).sort(([a], [b]) => (a < b ? -1 : 1))));
}

/** Returns the row's address after `api/`. If the key would have another meaning in a path, a "=" stands before it. */
function addressOf(row, key) {
  const texts = keyColumns.length === 1 ? [key] : keyColumns.map((column) => valueText(row[column]));
  const segment = texts.map(encodeURIComponent).join(',');
  return `${encodeURIComponent(table.name)}/${/^(|\.|\.\.|changes)$/i.test(segment) ? '=' : ''}${segment}`;
}

function noTableText() {
  if (token !== undefined) return 'No table is visible for this role. A policy lets a role see rows: plank.allow(…).';
  return "No table is attached, or none is visible without a token. Attach one: select plank.attach('orders');";
}

function noteText(shown) {
  const { rows, error, state } = query;
  if (error?.code === 'TOO_MANY_ROWS')
    return `The table has more than ${maxRows.toLocaleString('en')} rows: too many to show. Changes still arrive.`;
  if (error) return `The rows cannot be read: ${error.message}`;
  if (!marksFresh && state !== 'live') return 'Reading the rows…';
  if (rows.size > shown) return `${shown.toLocaleString('en')} of ${rows.size.toLocaleString('en')} rows are shown.`;
  return rows.size === 0 ? 'No rows yet.' : '';
}

function drawNote(text) {
  setText(byId('rows-note'), text);
}
