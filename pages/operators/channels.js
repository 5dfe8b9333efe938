// The channels of all gateways to which clients are subscribed. The channel with the most subscriptions comes first.

import { byId, setText } from '../common/dom.js';
import { countText, keptTable, unknownWhileAlone } from './parts.js';

let table;

export function startChannels() {
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

export function drawChannels({ channels, isAlone }) {
  const rows = channels.toSorted(
    (a, b) => b.subscribers - a.subscribers || a.table.localeCompare(b.table, 'en', { numeric: true }),
  );
  setText(byId('channels-count'), rows.length === 0 ? '' : String(rows.length));
  byId('channels-note').hidden = rows.length > 0;
  setText(byId('channels-note'), isAlone ? unknownWhileAlone : 'No client is subscribed at the moment.');
  table(rows, ({ name }) => name);
}
