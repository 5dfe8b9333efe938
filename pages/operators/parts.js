// What several parts of the console use: tables that keep their rows by key, and short texts for numbers.

import { element, setText } from '../common/dom.js';

/** The text in place of values that are missing because the gateway gets no reports of other gateways. */
export const unknownWhileAlone = 'Not known while Redis does not answer.';

/**
 * Returns a function that shows rows in the table. A column has a `label`, perhaps a `class`, and `text(row)`. If its
 * cells need more than text, it has `draw(cell, row)` instead. A cell that has not changed is not touched, so that a
 * button keeps the focus and a selection stays.
 */
export function keptTable(table, columns) {
  const body = table.tBodies[0];
  const drawn = new Map();
  // On a phone, CSS turns the rows into blocks. Without these roles, screen readers would no longer recognize a table.
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

/** Draws a word and a shape before it, because not everybody sees the colour. */
export function drawPill(cell, level, text) {
  const pill = cell.firstElementChild ?? cell.appendChild(element('span', { class: 'pill' }));
  if (pill.dataset.level !== level) pill.dataset.level = level;
  setText(pill, text);
}

export const countText = (value) => (value === null || value === undefined ? '–' : value.toLocaleString('en'));

/** Shows a duration in ms: 4 ms, 1.2 s. */
export function msText(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  return ms < 1_000 ? `${Math.round(ms)} ms` : secondsText(ms / 1_000);
}

/** Shows a duration in seconds: 1.2 s, 12 s, 3 min, 2 h, 5 d. */
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
