// The test page: one connection, on which a live query keeps the table items current and subscriptions tell of each change.
// `?tables=items,orders` says of which tables. Drawing happens once a frame, however many changes arrive.

import { startConnection } from './connection.js';
import { oncePerFrame } from './dom.js';
import { startEditor } from './editor.js';
import { addChange, addLine, drawFeed, showNothingFollowed, startFeed } from './feed.js';
import { drawItems, startItems } from './items.js';
import { createPlank } from './plank.js';

const plank = createPlank();
const chosen = new URLSearchParams(location.search).get('tables')?.split(',');

const draw = oncePerFrame(() => {
  drawItems();
  drawFeed();
});

startFeed(chosen);
startEditor();
startConnection(plank);
startItems(plank.table('items').live({}, draw));
for (const name of chosen ?? ['items']) {
  const onChange = (change) => {
    addChange(change);
    draw();
  };
  const say = (text) => {
    addLine(`${name}: ${text}`);
    draw();
  };
  plank.table(name).subscribe(
    {},
    {
      onChange,
      onResync: () => say('changes are missing here, they are no longer kept'),
      // where nobody chose a table, the list of items says that there is none
      onError: ({ code, message }) => (!chosen && code === 'UNKNOWN_TABLE' ? showNothingFollowed() : say(message)),
    },
  );
}
