// A list of the last changes, newest first. New entries wait until the next drawing, so that many changes cost only one
// drawing in a frame.

import { clockText, element, longText } from './dom.js';
import { jsonText, keyText } from './request.js';

const maxEntries = 100;
/** how many characters of a row's JSON are shown without a click */
const maxText = 600;

export class Feed {
  #list;
  #waiting = []; // entries that are not drawn yet, oldest first

  constructor(list) {
    this.#list = list;
  }

  get isEmpty() {
    return this.#list.children.length === 0;
  }

  /** The number of changes that wait to be drawn; "100+" if older changes were dropped. */
  get waitingText() {
    const { length } = this.#waiting;
    return length === 0 ? '' : `${length}${length === maxEntries ? '+' : ''}`;
  }

  /**
   * Adds a change. `row` is shown below the change, `note` after the name of the row, and the elements `extra` beside
   * the time.
   */
  addChange(change, { row = change.data, note = '', extra = [] } = {}) {
    this.#add({ at: new Date(), change, row, note, extra });
  }

  /** Adds a line across the list. */
  addLine(line) {
    this.#add({ line });
  }

  clear() {
    this.#waiting = [];
    this.#list.replaceChildren();
  }

  draw() {
    if (this.#waiting.length === 0) return;
    this.#list.prepend(...this.#waiting.map(entryOf).reverse());
    this.#waiting = [];
    while (this.#list.children.length > maxEntries) this.#list.lastElementChild.remove();
  }

  #add(entry) {
    this.#waiting.push(entry);
    if (this.#waiting.length > maxEntries) this.#waiting.shift();
  }
}

function entryOf({ at, line, change, row, note, extra }) {
  if (line) return element('li', { class: 'gap' }, line);
  const { table, action, id } = change;
  return element(
    'li',
    { class: 'fresh' },
    element('span', { class: `badge ${action}` }, action),
    element('span', { class: 'what' }, `${table} ${keyText(id)}`.trim(), note),
    element('time', { datetime: at.toISOString() }, clockText(at)),
    ...extra,
    ...(row ? [element('code', {}, ...longText(jsonText(row), maxText))] : []),
  );
}
