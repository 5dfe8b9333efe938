// The view: everything that the gateway that serves this page knows of all gateways, listeners and clients. The
// gateway sends the view as one JSON object each second, over an event stream. A stream stays with one gateway,
// even behind a balancer, so the page does not alternate between the views of two gateways.

import { isOver } from './session.js';

/** a stream without an event for so long hangs, even if its connection looks open */
const hangMs = 8_000;
const reopenMs = 1_500;

/** Calls `onView` with each view. */
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
      // the browser reports an ended session in the same way as a gateway that does not answer
      if (isClosed && (await isOver())) return location.reload();
      open();
    }
    setTimeout(look, reopenMs);
  };
  setTimeout(look, reopenMs);
  open();
}
