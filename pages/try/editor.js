// The form above the rows, with a field for each writable column: it inserts a row, or changes the
// one that is being edited. Problems are shown at the field that they are about.

import { byId, element, setText, showProblem } from '../common/dom.js';
import { valueText } from '../common/request.js';
import { write } from './write.js';

/** The form of a table with more columns is opened on request only. */
const maxOpenFields = 3;

let table = null;
let edited = null; // { key, row, name, address }, or null while the form inserts
let opens = false; // whether it is open when nothing is being edited

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

/** Shows the form for rows of another table; null: there is no table. */
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
    // an input drops line breaks, which must not count as a change of the user's
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

/** The row with this key was changed. */
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

/** Makes it a form that inserts. */
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
 * The columns whose fields are not as they were, as JSON texts. An empty field is null, and left
 * out of a new row.
 */
function changedValues() {
  const values = Object.create(null);
  for (const { name } of writableColumns()) {
    const { value, dataset } = inputOf(name);
    if (value !== dataset.before) values[name] = value.trim() === '' ? 'null' : asJson(value, 'json' in dataset);
  }
  return values;
}

/** A text that is not valid JSON is sent as a string: the server's answer says what it expects. */
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
  // a column may be called "constructor"
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
