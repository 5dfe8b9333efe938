// What the user writes: the form for a new item, a row being edited, a row to be deleted. Each problem is said where the
// input is.

import { byId, element, timeText } from './dom.js';
import { drawnRowOf, hasCome, itemOf, noteOnRow, placeRow, redrawRow, showProblem } from './items.js';
import { readNumber, send } from './rest.js';

const calmAfterMs = 4_000;

/** Takes the form's submits and the clicks on the rows' buttons. */
export function startEditor() {
  byId('create').addEventListener('submit', (event) => {
    event.preventDefault();
    create(event.target);
  });
  byId('items').addEventListener('click', ({ target }) => {
    const id = Number(target.closest('tr')?.dataset.id);
    if (target.dataset.role === 'edit') edit(id);
    if (target.dataset.role === 'delete') remove(target, id);
  });
}

async function create(form) {
  const { name, value } = form.elements;
  const body = { name: name.value };
  if (value.value.trim() !== '') body.value = readNumber(value.value);
  const button = form.querySelector('button');
  button.disabled = true;
  const answer = await send('POST', '', body);
  button.disabled = false;
  const fields = answer.fields ?? {};
  for (const output of form.querySelectorAll('[data-error]')) {
    const { error: field } = output.dataset;
    output.textContent = fields[field] ?? '';
    form.elements[field].setAttribute('aria-invalid', String(field in fields));
  }
  const placed = Object.keys(fields).filter((field) => field in form.elements);
  showProblem(placed.length > 0 ? undefined : answer.problem);
  if (answer.problem) {
    form.elements[placed[0]]?.focus();
    return;
  }
  form.reset();
  name.focus();
}

function edit(id) {
  const row = itemOf(id);
  if (!row) return;
  const name = element('input', { 'aria-label': 'Name', maxlength: 255, autocomplete: 'off' });
  const value = element('input', { 'aria-label': 'Value', inputmode: 'decimal', autocomplete: 'off' });
  name.value = row.name;
  value.value = row.value ?? '';
  const saveButton = element('button', { class: 'primary' }, 'Save');
  const close = () => {
    redrawRow(id);
    drawnRowOf(id)?.querySelector('[data-role="edit"]')?.focus();
  };
  const save = async () => {
    const changed = {};
    if (name.value !== row.name) changed.name = name.value;
    if (value.value.trim() !== String(row.value ?? '')) changed.value = readNumber(value.value);
    if (saveButton.disabled) return;
    if (Object.keys(changed).length === 0) return close();
    saveButton.disabled = true;
    editor.classList.add('saving');
    const answer = await send('PATCH', `/${id}`, changed);
    if (answer.row) await hasCome(answer.row);
    editor.classList.remove('saving');
    saveButton.disabled = false;
    name.setAttribute('aria-invalid', String(Boolean(answer.fields?.name)));
    value.setAttribute('aria-invalid', String(Boolean(answer.fields?.value)));
    if (answer.problem) return noteOnRow(editor, answer.problem);
    close();
  };
  saveButton.addEventListener('click', save);
  const editor = element(
    'tr',
    {
      'data-id': id,
      class: 'editing',
      onkeydown: (event) => {
        if (event.key === 'Escape') close();
        if (event.key === 'Enter' && event.target.tagName === 'INPUT') save();
      },
    },
    element('td', { class: 'id' }, String(id)),
    element('td', {}, name, element('span', { class: 'row-note', role: 'alert' })),
    element('td', { class: 'number' }, value),
    element('td', { class: 'time' }, timeText(row.updated_at)),
    element('td', { class: 'actions' }, saveButton, element('button', { onclick: close }, 'Cancel')),
  );
  placeRow(row, editor);
  name.focus();
  name.select();
}

/** The first click asks, the second deletes. */
async function remove(button, id) {
  if (!button.classList.contains('danger')) {
    button.classList.add('danger');
    button.textContent = 'Sure?';
    const calm = () => {
      button.classList.remove('danger');
      button.textContent = 'Delete';
    };
    button.addEventListener('blur', calm, { once: true });
    setTimeout(calm, calmAfterMs);
    return;
  }
  button.disabled = true;
  const answer = await send('DELETE', `/${id}`);
  // 404: somebody else was faster. The row goes when the change comes.
  if (!answer.problem || answer.status === 404) return;
  button.disabled = false;
  showProblem(answer.problem);
}
