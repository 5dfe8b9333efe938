/**
 * One WebSocket at a time, as the brain's events. What must stay true: one that was closed here says nothing more, and what comes
 * that is no frame of ours closes it.
 */
import { type ServerFrame, subprotocol } from '../shared/wire.ts';
import type { Event } from './state/model.ts';
import { exactMember, exactValue, parseExact } from './values/exact.ts';

/** What is used of a WebSocket: the browser's and Node's have it. (So has that of `ws`, whose types say it in another way.) */
export interface SocketLike {
  addEventListener(type: 'open' | 'message' | 'close' | 'error', listener: (event: SocketEvent) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A message has `data`, a close `code` and `reason`. */
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

  /** Throws where there is no WebSocket to be had: coming back would not help. */
  check(): void {
    if (this.#given === undefined && typeof WebSocket === 'undefined')
      throw new TypeError('there is no WebSocket here (Node has one from 22 on): give createPlank one');
  }

  /** `number` names the attempt in its events. */
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
      return { type: 'socket-close', socket: number, code: 1007, reason: 'what came was no frame' };
    });
    on('close', ({ code = 1006, reason = '' }) => ({ type: 'socket-close', socket: number, code, reason }));
    on('error', () => null); // a close follows
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Forgets it, and closes it if it is there. */
  close(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }
}

/** Where to connect to; beside the page unless given. Throws TypeError where that is no address of a WebSocket. */
export function socketUrl(given: string | URL | undefined): string {
  const base = typeof document === 'undefined' ? undefined : document.baseURI;
  if (given === undefined && base === undefined) throw new TypeError('createPlank needs a url here');
  const url = new URL(given ?? 'ws', base);
  url.protocol = url.protocol.replace('http', 'ws');
  if (!/^wss?:$/.test(url.protocol))
    throw new TypeError(`createPlank needs a url of ws(s):// or http(s)://, not ${url.href}`);
  return url.href;
}

/** Null: no frame. What is a key is exact, as rounded, two rows might have one. */
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
