// The form above the rows, with a field for each writable column. The form inserts a row, or changes the row that is
// being edited. If a value is wrong, the problem is shown at the value's field.

import { byId, element, setText, showProblem } from '../common/dom.js';
import { valueText } from '../common/request.js';
import { write } from './write.js';

/** If a table has more writable columns than this, its form opens only when the user opens it. */
const maxOpenFields = 3;

let table = null;
let edited = null; // { key, row, name, address }, or null while the form inserts
let opens = false; // whether the form is open when no row is being edited

export function startEditor() {
  byId('form').addEventListener('submit', (event) => {
    event.preventDefault();
    void save();
  });
  byId('form').addEventListener('keydown', ({ key }) => {
    if (key === 'Escape' && edited) close();
  });
  byId('cancel').addEventListener('click', close);
}

/** Shows the form for rows of another table. Null: there is no table, and the form is hidden. */
export function openEditor(given) {
  table = given;
  const fields = writableColumns();
  opens = fields.length <= maxOpenFields && !matchMedia('(max-width: 860px)').matches;
  byId('editor').hidden = fields.length === 0;
  byId('fields').replaceChildren(...fields.map(fieldOf));
  insertAgain();
}

export function editRow(row) {
  edited = row;
  for (const { name } of writableColumns()) {
    const input = inputOf(name);
    const value = row.row[name];
    input.value = value === null || value === undefined ? '' : valueText(value);
    // The input drops line breaks from the value. The text that remains is stored, so that it does not count as a
    // change.
    input.dataset.before = input.value;
    input.placeholder = 'null';
  }
  setText(byId('editor-title'), `Edit ${table.name} ${row.name}`);
  setText(byId('save'), 'Save');
  byId('cancel').hidden = false;
  byId('editor').open = true;
  showProblems({});
  const [first] = byId('fields').querySelectorAll('input, textarea');
  first?.focus();
  first?.select();
}

/** Called when the row with this key has changed. */
export function rowChanged(key) {
  if (edited?.key !== key || byId('save').disabled) return;
  showNote('Somebody changed this row meanwhile. Save replaces only what you changed.');
}

export function rowDeleted(key) {
  if (edited?.key !== key) return;
  showProblem(byId('problem'), `Somebody deleted ${table.name} ${edited.name} while you edited it.`);
  insertAgain();
}

const writableColumns = () => (table?.columns ?? []).filter(({ isWritable }) => isWritable);
const inputOf = (name) => byId('form').elements[`column:${name}`];

function fieldOf({ name, type, isJson }) {
  const error = element('span', { class: 'error', 'data-error': name });
  const input = element(/json|\[\]$/.test(type) ? 'textarea' : 'input', {
    name: `column:${name}`,
    autocomplete: 'off',
    spellcheck: 'false',
    ...(isJson ? { 'data-json': '' } : {}),
  });
  return element('label', { class: 'field' }, element('span', {}, name, ' ', element('small', {}, type)), input, error);
}

/** Turns the form into a form that inserts a row. */
function insertAgain() {
  edited = null;
  byId('form').reset();
  for (const { name, isRequired } of writableColumns()) {
    inputOf(name).dataset.before = '';
    inputOf(name).placeholder = isRequired ? '' : 'optional';
  }
  setText(byId('editor-title'), 'Insert a row');
  setText(byId('save'), 'Insert');
  byId('cancel').hidden = true;
  byId('editor').open = opens;
  showProblems({});
}

function close() {
  const { key } = edited;
  insertAgain();
  byId('rows')
    .querySelector(`[data-key="${CSS.escape(String(key))}"] [data-role="edit"]`)
    ?.focus();
}

async function save() {
  const values = changedValues();
  if (edited && Object.keys(values).length === 0) return close();
  byId('save').disabled = true;
  const place = edited?.address ?? encodeURIComponent(table.name);
  const { problem, fields = {} } = await write(edited ? 'PATCH' : 'POST', place, values);
  byId('save').disabled = false;
  showProblems(fields, problem);
  if (problem) return;
  if (edited) return close();
  opens = true;
  insertAgain();
  byId('fields').querySelector('input, textarea')?.focus();
}

/**
 * Returns the values of the fields that the user has changed, as JSON texts by column. A field that the user has
 * emptied means null. In a new row, an empty field is left out.
 */
function changedValues() {
  const values = Object.create(null);
  for (const { name } of writableColumns()) {
    const { value, dataset } = inputOf(name);
    if (value !== dataset.before) values[name] = value.trim() === '' ? 'null' : asJson(value, 'json' in dataset);
  }
  return values;
}

/**
 * Returns the field's text as JSON. If the text is not valid JSON, returns it as a JSON string. The server's answer
 * then says which value the column takes.
 */
function asJson(text, isJson) {
  if (!isJson) return JSON.stringify(text);
  try {
    JSON.parse(text);
    return text;
  } catch {
    return JSON.stringify(text);
  }
}

function showProblems(fields, problem) {
  const names = writableColumns().map(({ name }) => name);
  // `hasOwn`, because a column may be called "constructor"
  const isWrong = (name) => Object.hasOwn(fields, name);
  for (const name of names) {
    setText(byId('form').querySelector(`[data-error="${CSS.escape(name)}"]`), isWrong(name) ? fields[name] : '');
    inputOf(name).setAttribute('aria-invalid', String(isWrong(name)));
  }
  const wrong = names.find(isWrong);
  showNote(wrong ? '' : problem);
  if (wrong) inputOf(wrong).focus();
}

function showNote(text) {
  showProblem(byId('editor-note'), text);
}
