/** The client of one event stream. Its bytes go to the raw socket of the HTTP response; both end together. */
import type { Socket } from 'node:net';
import type { Expiring } from '../access/expiries.ts';
import type { Viewer } from '../access/viewer.ts';
import { eventFraming } from '../channels/framing.ts';
import type { Cursor } from '../relay/cursor.ts';
import { Outlet } from '../relay/outlet.ts';
import { addressOf, type Client, nextClientId } from './client.ts';
import type { Hold } from './queries.ts';
import { Subscription, type SubscriptionDeps, type SubscriptionOwner } from './subscription.ts';

/** after an unannounced end, a browser comes back after a random time from this to twice this … */
const leastRetryMs = 2_000;
/** … and after `dismiss`, within this time */
const returnWithinMs = 500;

interface StreamOptions {
  hold: Hold;
  snapshot: boolean;
  viewer: Viewer | null;
  expiresAt: number | null;
}

export class EventStream implements Client, Expiring, SubscriptionOwner {
  readonly id = nextClientId();
  readonly transport = 'sse';
  readonly mode = 'events';
  readonly address: string;
  readonly openedAt = performance.now();
  readonly outlet: Outlet;
  readonly viewer: Viewer | null;
  readonly expiresAt: number | null;
  /** true, because `live` gives the client a position, and the rebalancer picks only live clients */
  readonly resumes = true;
  readonly subscription: Subscription;
  readonly #socket: Socket;

  constructor(
    socket: Socket,
    forwardedFor: string | null,
    { viewer, expiresAt, ...request }: StreamOptions,
    deps: SubscriptionDeps,
  ) {
    this.#socket = socket;
    this.viewer = viewer;
    this.expiresAt = expiresAt;
    this.outlet = new Outlet(socket, eventFraming, this);
    this.address = addressOf(this.outlet, forwardedFor);
    this.subscription = new Subscription(this.outlet, request, this, deps);
    this.outlet.write(retryWithin(leastRetryMs, 2 * leastRetryMs));
  }

  get cursors(): readonly Cursor[] {
    return [this.subscription.cursor];
  }

  /** Does nothing: `dismiss` sends a `retry`, which tells the browser when to come back after the end of the stream. */
  warn(): void {}

  dismiss(): void {
    this.outlet.write(retryWithin(0, returnWithinMs));
    this.#end();
  }

  /** Cuts the connection, because a client that reads nothing would not see an orderly end. Browsers come back. */
  disconnect(): void {
    this.cut();
  }

  /** A browser comes back with the same token, and learns from the 401 to stay away. */
  expire(): void {
    this.#end();
  }

  cut(): void {
    this.#socket.destroy();
  }

  /** Ends the stream, after the subscription has sent its error as the last event. */
  onEnded(): void {
    this.#end();
  }

  #end(): void {
    this.outlet.end();
    this.#socket.end();
  }
}

/** An event that tells a browser how long to wait after the end before it comes back: a random time in this range. */
function retryWithin(fromMs: number, toMs: number): Buffer {
  return Buffer.from(`retry: ${Math.round(fromMs + Math.random() * (toMs - fromMs))}\n\n`);
}
