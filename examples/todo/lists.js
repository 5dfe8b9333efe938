// One list: its tasks, a form for another task, and who shares it. An owner shares the list and ends that; a member
// leaves the list.

import { element, keptItems } from './items.js';
import { names, user, write } from './session.js';

const other = user === 'ada' ? 'bob' : 'ada';

/** Returns the element of a list. `element.draw(todos, memberships)` draws its rows. `tell` shows a problem. */
export function listOf({ id, name, owner_id: owner }, tell) {
  const send = async (...request) => tell(await write(...request));
  const left = element('small');
  const items = element('ul', { ariaLabel: name });
  const people = element('p', { className: 'people' });
  const form = element(
    'form',
    {},
    element('input', { name: 'text', ariaLabel: `New task in ${name}`, placeholder: 'New task', maxLength: 200 }),
    element('button', { textContent: 'Add' }),
  );
  const { text } = form.elements;
  text.autocomplete = 'off';
  text.required = true;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void send('POST', 'todos', { id: crypto.randomUUID(), list_id: id, text: text.value });
    text.value = '';
  });
  const made = element('section', {}, element('h2', { textContent: name }, left), people, items, form);
  made.dataset.name = name;

  const button = (textContent, ...request) => {
    const shown = element('button', { type: 'button', textContent });
    shown.addEventListener('click', () => void send(...request));
    return shown;
  };
  const membership = (of) => `memberships/${id},${of}`;
  const drawPeople = keptItems(people, (state) => {
    if (owner !== user)
      return element('span', {}, `${names[owner]} shares this list. `, button('Leave', 'DELETE', membership(user)));
    if (state !== 'shared')
      return button(`Share with ${names[other]}`, 'POST', 'memberships', { list_id: id, user_id: other });
    return element('span', {}, `Shared with ${names[other]}. `, button('Stop sharing', 'DELETE', membership(other)));
  });
  const drawItems = keptItems(items, (todo) => itemOf(todo, send));
  made.draw = (todos, memberships) => {
    drawItems(todos, (todo) => todo.id);
    const open = todos.filter(({ done }) => !done).length;
    left.textContent = todos.length === 0 ? '' : `${open} of ${todos.length}`;
    drawPeople([memberships.some((one) => one.user_id === other) ? 'shared' : 'own'], () => 'people');
  };
  return made;
}

function itemOf({ id, text, done }, send) {
  const box = element('input', { type: 'checkbox', checked: done });
  box.addEventListener('change', () => void send('PATCH', `todos/${id}`, { done: box.checked }));
  const remove = element('button', { type: 'button', textContent: '✕', title: 'Remove', ariaLabel: `Remove ${text}` });
  remove.addEventListener('click', () => void send('DELETE', `todos/${id}`));
  const item = element('li', {}, element('label', {}, box, element('span', { textContent: text })), remove);
  item.dataset.id = id;
  item.classList.toggle('done', done);
  return item;
}
