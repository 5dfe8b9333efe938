// The test page. It has one connection. A live query keeps the rows of the picked table current, and subscriptions
// report each change of every attached table. `?table=orders` picks a table. The page draws once a frame, even if
// many changes come.

import { oncePerFrame } from '../common/dom.js';
import { createPlank } from '../plank.js';
import { showIdle, startConnection } from './connection.js';
import { startEditor } from './editor.js';
import { addChange, addLine, drawFeed, startFeed } from './feed.js';
import { drawRows, reviveRows, rowOf, showRowsOf, startRows } from './rows.js';
import { startTables } from './tables.js';

/** A connection can have at most 100 subscriptions; this leaves room for the live query. */
const maxFollowed = 90;

const plank = createPlank({
  onError: (error) => {
    // the page shows Plank's own problems, which have a code, in another place
    if (!('code' in error)) reportError(error);
  },
});
const followed = new Map(); // table → its subscription
let noticed = 0; // how many tables there were when the feed last said that there are too many
const draw = oncePerFrame(() => {
  drawRows();
  drawFeed();
});

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
  if (names.length === 0) showIdle();
  if (names.length > maxFollowed && names.length !== noticed) {
    addLine(
      `Changes of ${maxFollowed} of the ${names.length} tables are shown here, those of the picked one among them.`,
    );
  }
  noticed = names.length;
}

function subscribe(name) {
  return plank.table(name).subscribe(
    {},
    {
      // called before the live query applies the change, so the live query still has a deleted row
      onChange: (change) => addChange(change, rowOf(change.table, change.id)),
      onResync: () => addLine(`${name}: some changes are missing here, because they are no longer kept.`),
      onError: ({ code, message }) => {
        // if the table is attached again, the next list of tables subscribes to it again
        if (code === 'UNKNOWN_TABLE') followed.delete(name);
        addLine(`${name}: ${message}`);
      },
    },
  );
}
