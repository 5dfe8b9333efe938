// The last changes of every attached table, and the count of all that came. While paused, they wait
// undrawn.

import { byId, setText } from '../common/dom.js';
import { Feed } from '../common/feed.js';
import { jsonText } from '../common/request.js';

let feed;
let requestDrawing;
let isPaused = false;
let count = 0;
/**
 * Rows that the last transaction has written, by table and key: one that it inserts and deletes is
 * in no live query.
 */
const written = new Map();
const maxWritten = 1_000;
let transaction;

export function startFeed(draw) {
  feed = new Feed(byId('feed'));
  requestDrawing = draw;
  byId('pause').addEventListener('click', () => {
    isPaused = !isPaused;
    byId('pause').setAttribute('aria-pressed', String(isPaused));
    drawFeed();
  });
}

/** `known`: the row before the change, if the page has it, as a DELETE comes without its row. */
export function addChange(change, known) {
  count += 1;
  const { table, action, id, data, tx } = change;
  if (tx !== transaction || written.size >= maxWritten) written.clear();
  transaction = tx;
  const place = jsonText([table, id]);
  const row = data ?? (action === 'DELETE' ? (written.get(place) ?? known) : undefined);
  if (data) written.set(place, data);
  feed.addChange(change, { row });
  requestDrawing();
}

/** A line across the feed. */
export function addLine(line) {
  feed.addLine(line);
  requestDrawing();
}

export function drawFeed() {
  setText(byId('changes'), count.toLocaleString('en'));
  if (!isPaused) feed.draw();
  const waiting = feed.waitingText;
  setText(byId('pause'), isPaused ? `Resume${waiting && ` (${waiting} new)`}` : 'Pause');
  byId('feed-note').hidden = !feed.isEmpty;
}
