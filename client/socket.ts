/**
 * Owns one WebSocket at a time, and turns the socket's events into events of the state machine. What must stay true:
 * after `close`, the closed socket causes no more events. A message that is not a frame of plank.v1 counts as a close.
 */
import { type ServerFrame, subprotocol } from '../shared/wire.ts';
import type { Event } from './state/model.ts';
import { exactMember, exactValue, parseExact } from './values/exact.ts';

/**
 * The part of a WebSocket that the SDK uses. The WebSockets of browsers, of Node and of the package `ws` have this
 * part, although the types of `ws` differ.
 */
export interface SocketLike {
  addEventListener(type: 'open' | 'message' | 'close' | 'error', listener: (event: SocketEvent) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A message event has `data`, a close event `code` and `reason`. */
interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

type SocketClass = new (url: string, protocol: string) => SocketLike;

export class Socket {
  readonly #url: string;
  readonly #given: SocketClass | undefined;
  readonly #dispatch: (event: Event) => void;
  #socket: SocketLike | null = null;

  constructor(url: string, given: SocketClass | undefined, dispatch: (event: Event) => void) {
    this.#url = url;
    this.#given = given;
    this.#dispatch = dispatch;
  }

  /** If there is no WebSocket class, throws a TypeError, because every attempt to connect would fail. */
  check(): void {
    if (this.#given === undefined && typeof WebSocket === 'undefined')
      throw new TypeError('there is no global WebSocket: use Node 22 or newer, or createPlank({ WebSocket: … })');
  }

  /** @param number the number of the socket, which each event of the socket carries */
  connect(number: number): void {
    let socket: SocketLike;
    try {
      socket = new (this.#given ?? WebSocket)(this.#url, subprotocol);
    } catch (error) {
      this.#dispatch({ type: 'socket-failed', socket: number, message: (error as Error).message });
      return;
    }
    this.#socket = socket;
    const on = (type: 'open' | 'message' | 'close' | 'error', event: (given: SocketEvent) => Event | null) =>
      socket.addEventListener(type, (given) => {
        const happened = this.#socket === socket ? event(given) : null;
        if (happened) this.#dispatch(happened);
      });
    on('open', () => ({ type: 'socket-open', socket: number }));
    on('message', ({ data }) => {
      const frame = parseFrame(data);
      if (frame) return { type: 'frame', socket: number, frame };
      return { type: 'socket-close', socket: number, code: 1007, reason: 'a message was not a frame of plank.v1' };
    });
    on('close', ({ code = 1006, reason = '' }) => ({ type: 'socket-close', socket: number, code, reason }));
    on('error', () => null); // no event is needed here, because a close event follows
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Closes the socket. If there is none, does nothing. */
  close(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }
}

/**
 * Returns the address to connect to. Default: `ws`, relative to the page. If the address is not the address of a
 * WebSocket, throws a TypeError.
 */
export function socketUrl(given: string | URL | undefined): string {
  const base = typeof document === 'undefined' ? undefined : document.baseURI;
  if (given === undefined && base === undefined) throw new TypeError('createPlank needs a url where there is no page');
  const url = new URL(given ?? 'ws', base);
  url.protocol = url.protocol.replace('http', 'ws');
  if (!/^wss?:$/.test(url.protocol))
    throw new TypeError(`the url of createPlank must begin with ws(s):// or http(s)://: ${url.href}`);
  return url.href;
}

/**
 * Parses a message. If the data is not a frame, returns null. Numbers in keys stay exact, because two rows might have
 * the same key if their numbers were rounded.
 */
function parseFrame(data: unknown): ServerFrame | null {
  if (typeof data !== 'string') return null;
  try {
    const frame = parseExact(data) as ServerFrame | null;
    if (frame?.type === 'change') frame.id = exactValue(exactMember(frame, 'id'));
    return typeof frame?.type === 'string' ? frame : null;
  } catch {
    return null;
  }
}
