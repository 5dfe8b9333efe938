// The attached tables, and the table that is picked. The page reads the list every few seconds, because tables may be
// attached and detached in the database while the page is open.

import { byId, element } from '../common/dom.js';
import { ask, jsonText } from '../common/request.js';
import { showRefused } from './connection.js';
import { authorization, showRefusal } from './session.js';

const everyMs = 3_000;

let tables = [];
let listeners;

/**
 * Calls `onTables(names)` with each list of tables, with the picked table first. Calls `onPick(table)` when another
 * table is picked, or when the table's columns have changed. If no table is attached, calls `onPick(null)`.
 */
export function startTables(given) {
  listeners = given;
  byId('table').addEventListener('change', ({ target }) => {
    const address = new URL(location.href);
    address.searchParams.set('table', target.value);
    history.replaceState(null, '', address);
    pick();
  });
  void watch();
}

async function watch() {
  for (;;) {
    if (!document.hidden || tables.length === 0) {
      const { answer, problem, status } = await ask('try/tables.json', { headers: authorization });
      if (answer) take(answer);
      else if (status === 401) {
        showRefusal(problem);
        showRefused();
      }
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

function take(answer) {
  if (jsonText(answer) !== jsonText(tables)) {
    tables = answer;
    byId('table').replaceChildren(...tables.map(({ name }) => element('option', { value: name }, name)));
  }
  byId('picker').hidden = tables.length === 0;
  pick();
}

let picked; // the picked table as JSON, which differs when the table's columns have changed

function pick() {
  const wanted = new URLSearchParams(location.search).get('table') ?? 'items';
  const table = tables.find(({ name }) => name === wanted) ?? tables[0] ?? null;
  if (table) byId('table').value = table.name;
  const names = tables.map(({ name }) => name);
  listeners.onTables(table ? [table.name, ...names.filter((name) => name !== table.name)] : []);
  if (jsonText(table) === picked) return;
  picked = jsonText(table);
  listeners.onPick(table);
}
