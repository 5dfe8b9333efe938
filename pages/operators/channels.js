// What clients subscribe to, over all gateways, the most subscribed first.

import { byId } from '../dom.js';
import { isAlone } from './nodes.js';
import { countText, keptTable, setText } from './parts.js';

let query;
let table;

export function startChannels(plank, draw) {
  query = plank.table('channels').live({}, draw);
  table = keptTable(byId('channels'), [
    { label: 'Table', text: ({ table }) => table },
    {
      label: 'Filter',
      class: 'filter',
      text: ({ filter, columns }) =>
        [filter ?? 'every row', columns && `only ${columns.join(', ')}`].filter(Boolean).join('; '),
    },
    { label: 'Clients', class: 'number', text: ({ subscribers }) => countText(subscribers) },
    { label: 'Gateways', class: 'number', text: ({ replicas }) => countText(replicas) },
  ]);
}

export function drawChannels() {
  const rows = [...query.rows.values()].sort((a, b) => b.subscribers - a.subscribers || a.name.localeCompare(b.name));
  setText(byId('channels-count'), rows.length === 0 ? '' : String(rows.length));
  byId('channels-note').hidden = rows.length > 0;
  setText(
    byId('channels-note'),
    isAlone() ? 'Not known while Redis does not answer.' : 'Nobody is subscribed at the moment.',
  );
  table(rows, ({ name }) => name);
}
