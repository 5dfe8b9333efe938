// What the parts of the console share: tables whose rows are kept by key, numbers in few characters, requests to the gateway.

import { element } from '../dom.js';

/**
 * Makes a table keep its rows as given. A column has `label`, perhaps a `class`, and `text(row)`, or `draw(cell, row)` for more
 * than text. What has not changed is not touched: a button keeps the focus, a selection stays.
 */
export function keptTable(table, columns) {
  const body = table.tBodies[0];
  const drawn = new Map();
  // said outright: as blocks, on a phone, they would be no table any more for those who do not see it
  table.setAttribute('role', 'table');
  body.setAttribute('role', 'rowgroup');
  const heads = columns.map(({ label, ...column }) =>
    element(
      'th',
      { scope: 'col', role: 'columnheader', class: column.class ?? '' },
      column.isHidden ? element('span', { class: 'hidden' }, label) : label,
    ),
  );
  table.createTHead().setAttribute('role', 'rowgroup');
  table.tHead.append(element('tr', { role: 'row' }, ...heads));

  return (rows, keyOf, classOf = () => '') => {
    const keys = new Set(rows.map(keyOf));
    for (const [key, shown] of drawn) {
      if (keys.has(key)) continue;
      shown.remove();
      drawn.delete(key);
    }
    rows.forEach((row, index) => {
      const key = keyOf(row);
      let shown = drawn.get(key);
      if (!shown) {
        const cells = columns.map(({ label, class: name = '', isHidden }, at) =>
          element(at === 0 ? 'th' : 'td', {
            class: name,
            role: at === 0 ? 'rowheader' : 'cell',
            ...(at === 0 ? { scope: 'row' } : {}),
            ...(isHidden ? {} : { 'data-label': label }),
          }),
        );
        shown = element('tr', { role: 'row' }, ...cells);
        drawn.set(key, shown);
      }
      shown.className = classOf(row);
      columns.forEach((column, at) => {
        if (column.draw) column.draw(shown.cells[at], row);
        else setText(shown.cells[at], column.text(row));
      });
      if (body.rows[index] !== shown) body.insertBefore(shown, body.rows[index] ?? null);
    });
    table.hidden = rows.length === 0;
  };
}

export function setText(shown, text) {
  if (shown.textContent !== text) shown.textContent = text;
}

/** A word with a shape before it, so that colour is not all that tells. */
export function drawPill(cell, level, text) {
  const pill = cell.firstElementChild ?? cell.appendChild(element('span', { class: 'pill' }));
  if (pill.dataset.level !== level) pill.dataset.level = level;
  setText(pill, text);
}

export const countText = (value) => (value === null || value === undefined ? '–' : value.toLocaleString('en'));

/** 4 ms, 1.2 s */
export function msText(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  return ms < 1_000 ? `${Math.round(ms)} ms` : secondsText(ms / 1_000);
}

/** 1.2 s, 12 s, 3 min, 2 h, 5 d */
export function secondsText(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

const units = ['B', 'kB', 'MB', 'GB', 'TB'];

export function bytesText(bytes) {
  if (bytes === null || bytes === undefined) return '–';
  let value = bytes;
  let unit = 0;
  while (value >= 1_000 && unit < units.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** For JSON.parse: integers beyond 2^53 come as bigint, as those of the SDK do … */
function keepIntegers(_name, value, context) {
  const isRounded = Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source);
  return isRounded ? BigInt(context.source) : value;
}

/** … and for JSON.stringify: they go as they came. */
export const exact = (_name, value) => (typeof value === 'bigint' ? JSON.rawJSON(String(value)) : value);

/** { answer } or { problem, status, fields: { name: message } }. Never throws. */
export async function ask(path, options = {}) {
  try {
    const response = await fetch(path, { ...options, signal: AbortSignal.timeout(30_000) });
    const answer = response.status === 204 ? {} : JSON.parse(await response.text(), keepIntegers);
    if (response.ok) return { answer };
    const fields = Object.fromEntries((answer.errors ?? []).map(({ path, message }) => [path, message]));
    return { problem: answer.detail ?? answer.title, status: response.status, fields };
  } catch {
    return { problem: 'The gateway did not answer. Try again in a moment.' };
  }
}

/** Shows a problem, or hides it where there is none. */
export function showProblem(shown, text) {
  setText(shown, text ?? '');
  shown.hidden = !text;
}

const calmAfterMs = 4_000;

/**
 * A button that asks before it does: the first press turns it into the question, the second is the answer. `onAsk` hears that it
 * asks, and that it does no longer.
 */
export function sureButton(label, question, work, onAsk = () => {}) {
  const button = element('button', { type: 'button' }, label);
  const calm = () => {
    if (!button.classList.contains('danger')) return;
    onAsk(false);
    button.classList.remove('danger');
    setText(button, button.dataset.label ?? label);
  };
  button.addEventListener('blur', calm);
  button.addEventListener('click', async () => {
    if (!button.classList.contains('danger')) {
      button.classList.add('danger');
      button.dataset.label = button.textContent;
      setText(button, question);
      onAsk(true);
      setTimeout(calm, calmAfterMs);
      return;
    }
    calm();
    button.disabled = true;
    await work();
    button.disabled = false;
  });
  return button;
}
