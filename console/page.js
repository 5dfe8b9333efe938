// The test page: one WebSocket, the table items kept current by it, and the last changes of every table.
//
// Order of things after each (re)connect: the socket is open, so changes flow; they are held back while the list is read;
// then those held back are applied on top. One that the list already contains changes nothing, as each change carries the
// whole row and the last one for a row always wins. Drawing happens once a frame, however many changes arrive.

const feedLength = 100;
const pageSize = 1000;
const backoff = { minMs: 500, maxMs: 20_000 };
const maxHeldBack = 10_000; // then the list is so late that starting over is cheaper
const stableAfterMs = 30_000;
const apiUrl = new URL('api/items', document.baseURI);
const socketUrl = new URL('ws?whoami=1', document.baseURI);
socketUrl.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});
const dayAndClock = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

function timeText(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return '';
  return (date.toDateString() === new Date().toDateString() ? clock : dayAndClock).format(date);
}

// ---------------------------------------------------------------------------------------------- items

const items = new Map(); // id → row
const rows = new Map(); // id → its <tr>
const touched = new Set(); // ids to draw
let cleared = false;
let more = false;

function applyChange({ action, id, data }) {
  if (action === 'TRUNCATE') {
    items.clear();
    cleared = true;
  } else if (action === 'DELETE') {
    items.delete(id);
    touched.add(id);
  } else {
    items.set(id, data);
    touched.add(id);
  }
}

function applyList(list) {
  const present = new Set(list.map((row) => row.id));
  for (const id of items.keys()) {
    if (!present.has(id)) applyChange({ action: 'DELETE', id });
  }
  for (const row of list) {
    if (items.get(row.id)?.updated_at !== row.updated_at) applyChange({ action: 'INSERT', id: row.id, data: row });
  }
}

let quiet = true; // the first drawing marks nothing as new

function drawItems() {
  if (cleared) {
    cleared = false;
    for (const id of rows.keys()) touched.add(id);
  }
  const body = byId('items');
  for (const id of touched) {
    const row = items.get(id);
    const shown = rows.get(id);
    if (row === undefined) {
      if (shown?.classList.contains('editing')) showProblem(`Somebody deleted the item ${id} while you edited it.`);
      shown?.remove();
      rows.delete(id);
    } else if (shown?.classList.contains('editing')) {
      noteOnRow(shown, 'Somebody changed it meanwhile. Save replaces what you changed.');
    } else {
      const drawn = drawRow(row);
      if (!quiet) drawn.classList.add('fresh');
      if (shown) {
        const focused = shown.contains(document.activeElement) ? document.activeElement.dataset.role : undefined;
        shown.replaceWith(drawn);
        if (focused) drawn.querySelector(`[data-role="${focused}"]`)?.focus();
      } else {
        body.insertBefore(drawn, firstBelow(body, id));
      }
      rows.set(id, drawn);
    }
  }
  touched.clear();
  byId('items-count').textContent = items.size === 0 ? '' : `${items.size}${more ? '+' : ''}`;
  if (synced) {
    byId('items-note').textContent = more
      ? `Only the first ${pageSize} items and new ones are shown.`
      : items.size === 0
        ? 'There are no items yet. Add one above.'
        : '';
  }
}

/** Newest first. New rows go to the top, so this rarely looks at more than one. */
function firstBelow(body, id) {
  for (const row of body.children) {
    if (Number(row.dataset.id) < id) return row;
  }
  return null;
}

function drawRow(row) {
  return element(
    'tr',
    { 'data-id': row.id },
    element('td', { class: 'id' }, String(row.id)),
    element('td', {}, row.name),
    element('td', { class: 'number' }, row.value === null ? '–' : String(row.value)),
    element('td', { class: 'time', title: row.updated_at }, timeText(row.updated_at)),
    element(
      'td',
      { class: 'actions' },
      element('button', { 'data-role': 'edit', 'aria-label': `Edit ${row.name}`, onclick: () => edit(row.id) }, 'Edit'),
      element(
        'button',
        { 'data-role': 'delete', 'aria-label': `Delete ${row.name}`, onclick: (event) => remove(event.target, row.id) },
        'Delete',
      ),
    ),
  );
}

function noteOnRow(row, text) {
  const note = row.querySelector('.row-note');
  if (note) note.textContent = text;
}

function redraw(id) {
  rows.get(id)?.classList.remove('editing');
  touched.add(id);
  drawItems();
}

function edit(id) {
  const row = items.get(id);
  const shown = rows.get(id);
  if (!row || !shown) return;
  const name = element('input', { 'aria-label': 'Name', maxlength: 255, autocomplete: 'off' });
  const value = element('input', { 'aria-label': 'Value', inputmode: 'decimal', autocomplete: 'off' });
  name.value = row.name;
  value.value = row.value ?? '';
  const note = element('span', { class: 'row-note', role: 'alert' });
  const close = () => {
    redraw(id);
    rows.get(id)?.querySelector('[data-role="edit"]')?.focus();
  };
  const saveButton = element('button', { class: 'primary' }, 'Save');
  const save = async () => {
    const changed = {};
    if (name.value !== row.name) changed.name = name.value;
    if (value.value.trim() !== String(row.value ?? '')) changed.value = readNumber(value.value);
    if (Object.keys(changed).length === 0) return close();
    saveButton.disabled = true;
    const answer = await send('PATCH', `/${id}`, changed);
    saveButton.disabled = false;
    name.setAttribute('aria-invalid', String(Boolean(answer.fields?.name)));
    value.setAttribute('aria-invalid', String(Boolean(answer.fields?.value)));
    if (answer.problem) note.textContent = answer.problem;
    else {
      applyChange({ action: 'UPDATE', id, data: answer.row });
      close();
    }
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
    element('td', {}, name, note),
    element('td', { class: 'number' }, value),
    element('td', { class: 'time' }, timeText(row.updated_at)),
    element('td', { class: 'actions' }, saveButton, element('button', { onclick: close }, 'Cancel')),
  );
  shown.replaceWith(editor);
  rows.set(id, editor);
  name.focus();
  name.select();
}

async function remove(button, id) {
  if (!button.classList.contains('danger')) {
    button.classList.add('danger');
    button.textContent = 'Sure?';
    const calm = () => {
      button.classList.remove('danger');
      button.textContent = 'Delete';
    };
    button.addEventListener('blur', calm, { once: true });
    setTimeout(calm, 4000);
    return;
  }
  button.disabled = true;
  const answer = await send('DELETE', `/${id}`);
  button.disabled = false;
  // 404: somebody else was faster, and the row goes all the same
  if (answer.problem && answer.status !== 404) showProblem(answer.problem);
  else {
    applyChange({ action: 'DELETE', id });
    drawItems();
  }
}

// ---------------------------------------------------------------------------------------------- REST

/** Text that is no number is sent as it is: the server says what is wrong with it. */
function readNumber(text) {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  const number = Number(trimmed);
  return Number.isFinite(number) ? number : trimmed;
}

/** { row } or { problem, status, fields: { name: message } } */
async function send(method, path, body) {
  try {
    const response = await fetch(apiUrl + path, {
      method,
      signal: AbortSignal.timeout(15_000),
      ...(body ? { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } } : {}),
    });
    if (response.status === 204) return {};
    const answer = await response.json();
    if (response.ok) return { row: answer };
    const fields = Object.fromEntries((answer.errors ?? []).map(({ path, message }) => [path, message]));
    return { problem: answer.detail ?? answer.title, status: response.status, fields };
  } catch {
    return { problem: 'The server did not answer. Try again in a moment.' };
  }
}

function showProblem(text) {
  const problem = byId('problem');
  problem.textContent = text ?? '';
  problem.hidden = !text;
}

byId('create').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.target;
  const body = { name: form.elements.name.value };
  if (form.elements.value.value.trim() !== '') body.value = readNumber(form.elements.value.value);
  const button = form.querySelector('button');
  button.disabled = true;
  const answer = await send('POST', '', body);
  button.disabled = false;
  const fields = answer.fields ?? {};
  for (const output of form.querySelectorAll('[data-error]')) {
    const { error: name } = output.dataset;
    output.textContent = fields[name] ?? '';
    form.elements[name].setAttribute('aria-invalid', String(name in fields));
  }
  const placed = Object.keys(fields).some((name) => name in form.elements);
  showProblem(placed ? undefined : answer.problem);
  if (answer.problem) {
    form.elements[Object.keys(fields)[0]]?.focus();
    return;
  }
  // the answer may come before the change does, or after somebody changed the row again
  if (!items.has(answer.row.id)) applyChange({ action: 'INSERT', id: answer.row.id, data: answer.row });
  drawItems();
  form.reset();
  form.elements.name.focus();
});

// ---------------------------------------------------------------------------------------------- feed

let waiting = []; // entries that are not drawn yet, oldest first
let paused = false;

function addToFeed(entry) {
  waiting.push(entry);
  if (waiting.length > feedLength) waiting = waiting.slice(-feedLength);
}

function drawFeed() {
  const pause = byId('pause');
  if (paused) {
    pause.textContent =
      waiting.length === 0 ? 'Resume' : `Resume (${waiting.length === feedLength ? '100+' : waiting.length} new)`;
    return;
  }
  const feed = byId('feed');
  feed.prepend(...waiting.map(drawEntry).reverse());
  waiting = [];
  while (feed.children.length > feedLength) feed.lastElementChild.remove();
  byId('feed-note').hidden = feed.children.length > 0;
}

function drawEntry({ at, gap, change }) {
  if (gap) return element('li', { class: 'gap' }, gap);
  const { table, action, id, data } = change;
  const key = id !== null && typeof id === 'object' ? Object.values(id).join(', ') : id;
  const code = element('code', { title: 'The row' }, data === null ? '' : JSON.stringify(data));
  return element(
    'li',
    { class: 'fresh' },
    element('span', { class: `badge ${action}` }, action),
    element('span', { class: 'what' }, action === 'TRUNCATE' ? table : `${table} ${key}`),
    element('time', { datetime: at.toISOString() }, clock.format(at)),
    ...(data === null ? [] : [code]),
  );
}

byId('pause').addEventListener('click', () => {
  paused = !paused;
  byId('pause').setAttribute('aria-pressed', String(paused));
  byId('pause').textContent = 'Pause';
  drawFeed();
});

// ---------------------------------------------------------------------------------------------- connection
// connecting → live ⇄ reconnecting; stopped where the server says that coming back is of no use (close codes 44xx).

let socket;
let synced = false;
let heldBack = []; // changes that came while the list was being read
let changes = 0;
let liveSince;
let failures = 0;
let retryTimer;
let drawing = false;

function setState(state, text) {
  byId('state').dataset.state = state;
  byId('state-text').textContent = text;
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    byId('changes').textContent = changes.toLocaleString();
    drawItems();
    drawFeed();
    quiet = !synced;
  });
}

function connect() {
  clearTimeout(retryTimer);
  const mine = new WebSocket(socketUrl);
  socket = mine;
  synced = false;
  heldBack = [];
  // a network that swallows packets would leave this attempt hanging for minutes
  const deadline = setTimeout(() => mine.close(), 10_000);

  mine.addEventListener('open', () => {
    clearTimeout(deadline);
    liveSince = Date.now();
    const node = /(?:^|; )plank_node=([^;]*)/.exec(document.cookie)?.[1];
    byId('node').textContent = node ? decodeURIComponent(node) : 'unknown';
    setState('live', 'Live');
    if (changes > 0 || byId('feed').children.length > 0) addToFeed({ gap: 'connected again; the list was read anew' });
    readList(mine);
  });
  mine.addEventListener('message', ({ data }) => {
    if (socket !== mine) return;
    const change = JSON.parse(data);
    changes += 1;
    addToFeed({ at: new Date(), change });
    if (change.table === 'items') {
      if (synced) applyChange(change);
      else if (heldBack.push(change) > maxHeldBack) mine.close();
    }
    draw();
  });
  mine.addEventListener('close', ({ code, reason }) => {
    clearTimeout(deadline);
    if (socket !== mine) return;
    if (liveSince && Date.now() - liveSince > stableAfterMs) failures = 0;
    liveSince = undefined;
    byId('node').textContent = '–';
    byId('uptime').textContent = '–';
    if (code >= 4400 && code < 4500) setState('stopped', `Stopped: ${reason || `code ${code}`}`);
    else reconnectLater();
  });
}

function reconnectLater() {
  const ceiling = Math.min(backoff.maxMs, backoff.minMs * 2 ** failures++);
  const wait = backoff.minMs / 2 + Math.random() * ceiling;
  setState('reconnecting', 'Reconnecting');
  retryTimer = setTimeout(connect, wait);
}

/** Nobody should wait out a backoff in front of a page that could connect now. */
function reconnectNow() {
  if (byId('state').dataset.state === 'reconnecting' && socket.readyState === WebSocket.CLOSED) connect();
}
window.addEventListener('online', reconnectNow);
document.addEventListener('visibilitychange', () => !document.hidden && reconnectNow());
// a socket over a lost network looks open for minutes
window.addEventListener('offline', () => socket.close());

async function readList(mine) {
  for (let attempt = 0; socket === mine && mine.readyState === WebSocket.OPEN; attempt++) {
    try {
      const response = await fetch(`${apiUrl}?limit=${pageSize}`, { signal: AbortSignal.timeout(15_000) });
      if (!response.ok) throw new Error((await response.json()).detail);
      const list = await response.json();
      if (socket !== mine) return;
      more = response.headers.has('Plank-Next-Cursor');
      applyList(list);
      heldBack.forEach(applyChange);
      heldBack = [];
      synced = true;
      draw();
      return;
    } catch {
      byId('items-note').textContent = 'The items could not be read; trying again…';
      await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(backoff.maxMs, 1000 * 2 ** attempt)));
    }
  }
}

setInterval(() => {
  if (!liveSince) return;
  const seconds = Math.floor((Date.now() - liveSince) / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  byId('uptime').textContent = shown.map((part) => String(part).padStart(2, '0')).join(':');
}, 1000);

connect();
