/** The client of one event stream. Its bytes go to the raw socket of an HTTP response that ends with the connection. */
import type { Socket } from 'node:net';
import { eventFraming } from '../channels/framing.ts';
import type { RowQuery } from '../channels/row-query.ts';
import type { Cursor } from '../relay/cursor.ts';
import { Outlet } from '../relay/outlet.ts';
import { addressOf, type Client, nextClientId } from './client.ts';
import { Subscription, type SubscriptionDeps, type SubscriptionOwner } from './subscription.ts';

/** after an end that nobody announced, browsers come back at some moment from here to its double … */
const leastRetryMs = 2_000;
/** … and where the replica asks them to go, within this time */
const returnWithinMs = 500;

export class EventStream implements Client, SubscriptionOwner {
  readonly id = nextClientId();
  readonly transport = 'sse';
  readonly mode = 'events';
  readonly address: string;
  readonly openedAt = performance.now();
  readonly outlet: Outlet;
  /** `live` gives the client a position, and only live clients are dismissed while others stay */
  readonly resumes = true;
  readonly subscription: Subscription;
  readonly #socket: Socket;

  constructor(
    socket: Socket,
    forwardedFor: string | null,
    request: { query: RowQuery; snapshot: boolean },
    deps: SubscriptionDeps,
  ) {
    this.#socket = socket;
    this.outlet = new Outlet(socket, eventFraming, this);
    this.address = addressOf(this.outlet, forwardedFor);
    this.subscription = new Subscription(this.outlet, request, this, deps);
    this.outlet.write(retryWithin(leastRetryMs, 2 * leastRetryMs));
  }

  get cursors(): readonly Cursor[] {
    return [this.subscription.cursor];
  }

  /** Does nothing: the `retry` that `dismiss` sends counts from the end of the stream. */
  warn(): void {}

  dismiss(): void {
    this.outlet.write(retryWithin(0, returnWithinMs));
    this.#end();
  }

  /** Not an orderly end, which a client that reads nothing would not see. Browsers come back by themselves. */
  disconnect(): void {
    this.cut();
  }

  cut(): void {
    this.#socket.destroy();
  }

  /** The error that was sent is the last event. */
  onEnded(): void {
    this.#end();
  }

  #end(): void {
    this.outlet.end();
    this.#socket.end();
  }
}

/** Tells a browser to come back at a random moment within this range after the end, in ms. */
function retryWithin(fromMs: number, toMs: number): Buffer {
  return Buffer.from(`retry: ${Math.round(fromMs + Math.random() * (toMs - fromMs))}\n\n`);
}
