// A to-do list that all windows share. The page shows only the rows of a live query. A click writes through REST.
// When the change arrives, the list follows, in this window and in all others.

// the server writes the gateway's address into the page; if the page took the address from its URL, a link could
// make it load any script
const plankUrl = new URL(document.documentElement.dataset.plank);
const byId = (id) => document.getElementById(id);
const { createPlank } = await import(new URL('/plank.js', plankUrl).href).catch((error) => {
  byId('note').textContent = 'Plank does not answer. Reload this page when it runs.';
  throw error;
});
const plank = createPlank({ url: new URL('/ws', plankUrl) });
const todos = plank.table('todo').live({}, draw);
const drawn = new Map(); // id → { row, item }

function draw() {
  for (const [id, { item }] of drawn) {
    if (todos.rows.has(id)) continue;
    item.remove();
    drawn.delete(id);
  }
  const rows = [...todos.rows.values()].sort(byAge);
  const list = byId('list');
  rows.forEach((row, i) => {
    const known = drawn.get(row.id);
    if (known?.row !== row) {
      const item = itemOf(row);
      known?.item.replaceWith(item);
      drawn.set(row.id, { row, item });
    }
    const { item } = drawn.get(row.id);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  const left = rows.filter(({ done }) => !done).length;
  byId('left').textContent = rows.length === 0 ? '' : `${left} of ${rows.length}`;
  byId('note').textContent = note();
}

function note() {
  if (todos.error) return todos.error.message;
  if (todos.state === 'stale') return `Changes since ${todos.staleSince.toLocaleTimeString()} may be missing.`;
  if (todos.state === 'live') return todos.rows.size === 0 ? 'Nothing to do.' : '';
  return todos.rows.size === 0 ? 'Connecting…' : 'Reconnecting…';
}

const byAge = (a, b) => compare(a.created_at, b.created_at) || compare(a.id, b.id);
const compare = (a, b) => (a < b ? -1 : Number(a > b));

function itemOf({ id, text, done }) {
  const box = Object.assign(document.createElement('input'), { type: 'checkbox', checked: done });
  box.addEventListener('change', () => void write('PATCH', `/${id}`, { done: box.checked }));
  const caption = Object.assign(document.createElement('span'), { textContent: text });
  const label = document.createElement('label');
  label.append(box, caption);
  const remove = Object.assign(document.createElement('button'), { textContent: '✕', title: 'Remove' });
  remove.setAttribute('aria-label', `Remove ${text}`);
  remove.addEventListener('click', () => void write('DELETE', `/${id}`));
  const item = document.createElement('li');
  item.dataset.id = id;
  item.classList.toggle('done', done);
  item.append(label, remove);
  return item;
}

byId('add').addEventListener('submit', (event) => {
  event.preventDefault();
  const { text } = event.target.elements;
  void write('POST', '', { id: crypto.randomUUID(), text: text.value });
  text.value = '';
});

/**
 * Repeats the write until the server has answered. Each of these writes may be repeated: the page
 * chooses the id of a new item, so a repeated POST gets 409 and adds nothing.
 */
async function write(method, path, body) {
  for (let waitMs = 200; ; waitMs = Math.min(2 * waitMs, 5_000)) {
    const response = await fetch(new URL(`/api/todo${path}`, plankUrl), {
      method,
      headers: { 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(5_000),
    }).catch(() => null);
    if (response && response.status < 500) {
      if (!response.ok && response.status !== 409 && response.status !== 404)
        byId('note').textContent = await problem(response);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs * (0.5 + Math.random())));
  }
}

const problem = async (response) => (await response.json()).detail ?? `status ${response.status}`;
