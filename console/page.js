// The test page: one WebSocket, the table items kept current by it, and the last changes of every table.
//
// Order of things after each (re)connect: the socket is open, so changes flow; they are held back while the list is read;
// then those held back are applied on top. One that the list already contains changes nothing, as each change carries the
// whole row and the last one for a row always wins. Drawing happens once a frame, however many changes arrive.

import { backoff, isCurrent, startConnection } from './connection.js';
import { oncePerFrame } from './dom.js';
import { startEditor } from './editor.js';
import { addChange, addGap, drawFeed, startFeed } from './feed.js';
import { applyChange, applyList, drawItems, showListProblem } from './items.js';
import { readItems } from './rest.js';

const pageSize = 1000;
const maxHeldBack = 10_000; // then the list is so late that starting over is cheaper

let live; // the socket whose list is being read or was read
let heldBack = []; // changes that came since it opened; undefined once the list is here

const draw = oncePerFrame(() => {
  drawItems();
  drawFeed();
});

async function readList(socket) {
  for (let attempt = 0; isCurrent(socket); attempt++) {
    try {
      const { rows, more } = await readItems(pageSize);
      if (!isCurrent(socket)) return;
      applyList(rows, more ? pageSize : undefined);
      heldBack.forEach(applyChange);
      heldBack = undefined;
      return draw();
    } catch {
      showListProblem('The items could not be read; trying again…');
      const wait = Math.random() * Math.min(backoff.maxMs, 2 * backoff.minMs * 2 ** attempt);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

startFeed();
startEditor();
startConnection({
  onLive(socket) {
    live = socket;
    heldBack = [];
    addGap('connected again; the list was read anew');
    readList(socket);
  },
  onChange(change) {
    addChange(change);
    if (change.table === 'items') {
      if (!heldBack) applyChange(change);
      else if (heldBack.push(change) > maxHeldBack) live.close();
    }
    draw();
  },
});
