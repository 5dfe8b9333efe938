// Gets the view: the reports that the gateway of this page has of all gateways, listeners and clients. The gateway
// sends the view as one JSON object each second, over an event stream. A stream stays with one gateway, even behind a
// balancer, so the page does not alternate between the views of two gateways.

import { isOver } from './session.js';

/** if a stream brings no event for this long, the stream hangs, even if its connection looks open */
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
  // Calls of `look` never overlap: while one call waits for an answer, another call would open a second stream.
  const look = async () => {
    const isClosed = source.readyState === EventSource.CLOSED;
    if (isClosed || Date.now() - heardAt >= hangMs) {
      source.close();
      // For the browser, an ended session looks the same as a gateway that does not answer.
      if (isClosed && (await isOver())) return location.reload();
      open();
    }
    setTimeout(look, reopenMs);
  };
  setTimeout(look, reopenMs);
  open();
}
