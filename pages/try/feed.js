// The last changes of every attached table, and the number of all changes that have come. While the feed is paused, new
// changes wait to be drawn.

import { byId, setText } from '../common/dom.js';
import { Feed } from '../common/feed.js';
import { jsonText } from '../common/request.js';

let feed;
let requestDrawing;
let isPaused = false;
let count = 0;
/**
 * The rows that the last transaction has written, by table and key. If one transaction inserts and deletes a row, no
 * live query has this row, so it is kept here.
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

/**
 * Adds a change. `known` is the row before the change, if the page has it. A DELETE comes without its row, so the feed
 * shows `known`.
 */
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

/** Adds a line across the feed. */
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
