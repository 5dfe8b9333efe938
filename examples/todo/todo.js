// To-do lists of two users. The page shows only the rows of three live queries: the server sends a user the rows that
// the user may see, and nothing else. A click writes through REST. When the change arrives, the page follows, in this
// window and in all others. If a user leaves a list, the list and its tasks leave the queries.

import { keptItems } from './items.js';
import { listOf } from './lists.js';
import { names, plankUrl, renewToken, signIn, user } from './session.js';

const byId = (id) => document.getElementById(id);
for (const button of byId('users').children) {
  button.ariaPressed = String(button.value === user);
  button.addEventListener('click', () => signIn(button.value));
}

const { createPlank } = await import(new URL('/plank.js', plankUrl).href).catch((error) => {
  byId('note').textContent = 'Plank does not answer. Reload this page when it runs.';
  throw error;
});
let problem;
let isChecked = true; // whether the gateway checks tokens
let queries = [];
if (user === null) byId('note').textContent = 'Sign in as Ada or Bob. Two windows can have two users.';
else follow();

function follow() {
  const plank = createPlank({ url: new URL('/ws', plankUrl), token: renewToken });
  plank.onState((link) => {
    if (link.status === 'open') isChecked = link.viewer !== null;
  });
  const drawLists = keptItems(byId('lists'), (row) => listOf(row, tell));
  const draw = () => {
    const [lists, memberships, todos] = queries.map(({ rows }) => [...rows.values()]);
    const shown = lists.sort((a, b) => compare(a.name, b.name));
    todos.sort((a, b) => compare(a.created_at, b.created_at) || compare(a.id, b.id));
    drawLists(shown, ({ id }) => id);
    const ofList = (rows, id) => rows.filter(({ list_id: list }) => list === id);
    shown.forEach(({ id }, i) => byId('lists').children[i].draw(ofList(todos, id), ofList(memberships, id)));
    byId('note').textContent = note();
  };
  queries = ['lists', 'memberships', 'todos'].map((name) => plank.table(name).live({}));
  for (const query of queries) query.subscribe(draw);
}

function tell(text) {
  problem = text;
  byId('note').textContent = note();
}

function note() {
  const ended = queries.find(({ error }) => error);
  if (ended) return ended.error.message;
  if (problem) return problem;
  const stale = queries.find(({ state }) => state === 'stale');
  if (stale) return `Changes since ${stale.staleSince.toLocaleTimeString()} may be missing.`;
  if (!queries.every(({ state }) => state === 'live'))
    return queries[0].rows.size === 0 ? 'Connecting…' : 'Reconnecting…';
  if (!isChecked) return 'The gateway has AUTH=off: everyone sees every list.';
  return queries[0].rows.size === 0 ? `There are no lists for ${names[user]}.` : '';
}

const compare = (a, b) => (a < b ? -1 : Number(a > b));
