// The test page. It has one connection. A live query keeps the rows of the picked table current, and subscriptions
// report each change of every attached table. `?table=orders` picks a table. Even if many changes come, the page draws
// once in a frame.

import { oncePerFrame } from '../common/dom.js';
import { createPlank } from '../plank.js';
import { showIdle, startConnection } from './connection.js';
import { startEditor } from './editor.js';
import { addChange, addLine, drawFeed, startFeed } from './feed.js';
import { drawRows, reviveRows, rowOf, showRowsOf, startRows } from './rows.js';
import { offerSession, startSession, token } from './session.js';
import { startTables } from './tables.js';

/** A connection can have at most 100 subscriptions. This number leaves room for the live query. */
const maxFollowed = 90;

const plank = createPlank({
  ...(token === undefined ? {} : { token }),
  onError: (error) => {
    // Plank's own problems have a code, and the page shows them in another place.
    if (!('code' in error)) reportError(error);
  },
});
const followed = new Map(); // the subscription of each followed table, by the table's name
let noticed = 0; // the number of tables when the feed last said that there are too many
const draw = oncePerFrame(() => {
  drawRows();
  drawFeed();
});

startSession();
startConnection(plank);
startFeed(draw);
startRows(plank, draw);
startEditor();
startTables({ onTables: follow, onPick: showRowsOf });

/**
 * Subscribes to each table, up to `maxFollowed`. The picked table comes first, so that it is always followed.
 */
function follow(names) {
  const wanted = new Set(names.slice(0, maxFollowed));
  for (const [name, subscription] of followed) {
    if (wanted.has(name)) continue;
    subscription.unsubscribe();
    followed.delete(name);
  }
  for (const name of wanted) if (!followed.has(name)) followed.set(name, subscribe(name));
  reviveRows();
  if (names.length === 0) {
    // Without a subscription there is no connection, and so nothing that says which role the token has.
    if (token !== undefined && plank.state === 'idle') plank.table('items').subscribe({}, { onError: () => {} });
    offerSession();
    showIdle();
  }
  if (names.length > maxFollowed && names.length !== noticed) {
    addLine(
      `Changes of ${maxFollowed} of the ${names.length} tables are shown here, those of the picked one among them.`,
    );
  }
  noticed = names.length;
}

function resyncText(reason) {
  if (reason === 'access') return 'from here on, you may see other rows or columns than before.';
  return 'some changes are missing here, because they are no longer kept.';
}

function subscribe(name) {
  return plank.table(name).subscribe(
    {},
    {
      // `onChange` runs before the live query applies the change. So the live query still has a row that was deleted.
      onChange: (change) => addChange(change, rowOf(change.table, change.id)),
      onResync: (reason) => addLine(`${name}: ${resyncText(reason)}`),
      onError: ({ code, message }) => {
        // If the table is attached again, `follow` gets its name again and subscribes to the table.
        if (code === 'UNKNOWN_TABLE') followed.delete(name);
        addLine(`${name}: ${message}`);
      },
    },
  );
}
