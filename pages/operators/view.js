// What the gateway that serves this page knows of the whole: it sends all of it as one JSON object
// each second, over an event stream. A stream stays with one gateway, also behind a balancer, so
// that the page never shows two gateways in turn.

import { isOver } from './session.js';

/** a stream without an event for so long hangs, although the connection may look open */
const hangMs = 8_000;
const reopenMs = 1_500;

/** Calls back with each view. */
export function followView(onView) {
  let source;
  let heardAt = Date.now();
  const open = () => {
    heardAt = Date.now();
    source = new EventSource('ops/view');
    source.onmessage = ({ data }) => {
      heardAt = Date.now();
      onView(JSON.parse(data));
    };
  };
  // one look after the other: while one waits for an answer, another would open a second stream
  const look = async () => {
    const isClosed = source.readyState === EventSource.CLOSED;
    if (isClosed || Date.now() - heardAt >= hangMs) {
      source.close();
      // a session that has ended looks like a gateway that does not answer
      if (isClosed && (await isOver())) return location.reload();
      open();
    }
    setTimeout(look, reopenMs);
  };
  setTimeout(look, reopenMs);
  open();
}
