// Owns a TCP proxy on 127.0.0.1 that stands between two parts and misbehaves on demand. What must stay true:
// - bytes pass in order and unchanged; what is held is either passed on later or, when its sender has gone, never;
// - a link that was blackholed stays silent with both ends open, also after `pass`: its owner must notice by itself, and
//   its other end learns nothing of that, as behind a broken network.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** `client` is whoever connects to the proxy, `server` what it connects to. */
type Side = 'client' | 'server';

interface Link {
  client: Socket;
  server: Socket;
  /** what came from a side and has not been passed on */
  held: Record<Side, Buffer[]>;
  silent: boolean;
}

export class TcpProxy {
  readonly #server: Server;
  readonly #target: { host: string; port: number };
  readonly #links = new Set<Link>();
  readonly #holding: Record<Side, boolean> = { client: false, server: false };
  #silent = false;
  #delayMs = 0;
  /** of what the server says, in ms; 0: as fast as it goes */
  #msPerByte = 0;
  #cutAt: string | undefined;
  /** connections taken so far */
  accepted = 0;

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server;
    this.#target = target;
    server.on('connection', (client) => this.#accept(client));
  }

  /** `url` tells where to: postgres://…, redis://…, http://… with a port. */
  static async start(url: string): Promise<TcpProxy> {
    const { hostname, port } = new URL(url);
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new TcpProxy(server, { host: hostname, port: Number(port) });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The same URL, but through this proxy. */
  through(url: string): string {
    const through = new URL(url);
    through.host = `127.0.0.1:${this.port}`;
    return through.href;
  }

  /** Back to normal. What was held goes on; blackholed links stay silent. */
  pass(): void {
    this.#silent = false;
    this.#delayMs = 0;
    this.#msPerByte = 0;
    this.#cutAt = undefined;
    for (const side of ['client', 'server'] as const) {
      this.#holding[side] = false;
      for (const link of this.#links) {
        for (const bytes of link.held[side].splice(0)) this.#other(link, side).write(bytes);
      }
    }
  }

  /** What clients say is kept here, with the connections open. */
  holdRequests(): void {
    this.#holding.client = true;
  }

  /** What the server answers is kept here. */
  holdReplies(): void {
    this.#holding.server = true;
  }

  /** bytes held now, of both directions */
  get heldBytes(): number {
    let bytes = 0;
    for (const { held } of this.#links) for (const chunk of [...held.client, ...held.server]) bytes += chunk.length;
    return bytes;
  }

  /** All links, also new ones, say nothing from now on and swallow what they get. */
  blackhole(): void {
    this.#silent = true;
    for (const link of this.#links) link.silent = true;
  }

  /** Every chunk, in both directions, is passed on this much later. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** What the server says is passed on at so many bytes a second. */
  throttle(bytesPerSecond: number): void {
    this.#msPerByte = 1_000 / bytesPerSecond;
  }

  /** Resets the connections there are; new ones pass. */
  cut(): void {
    for (const link of this.#links) this.#drop(link);
  }

  /** Resets the connections there are, and new ones when their client says this. */
  cutAt(words: string): void {
    this.#cutAt = words;
    this.cut();
  }

  async stop(): Promise<void> {
    for (const link of this.#links) this.#drop(link);
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #other(link: Link, side: Side): Socket {
    return side === 'client' ? link.server : link.client;
  }

  #drop(link: Link): void {
    this.#links.delete(link);
    link.client.resetAndDestroy();
    link.server.resetAndDestroy();
  }

  #accept(client: Socket): void {
    const server = connect({ ...this.#target, allowHalfOpen: true, noDelay: true });
    const link: Link = { client, server, held: { client: [], server: [] }, silent: this.#silent };
    this.#links.add(link);
    this.accepted++;
    for (const side of ['client', 'server'] as const) {
      const socket = link[side];
      socket.on('data', (bytes: Buffer) => this.#data(link, side, bytes));
      // 'close' follows
      socket.on('error', () => {});
      socket.on('end', () => this.#ended(link, side));
      socket.on('close', () => this.#closed(link, side));
    }
  }

  #data(link: Link, side: Side, bytes: Buffer): void {
    if (link.silent) return;
    if (this.#cutAt && side === 'client' && bytes.includes(this.#cutAt)) return this.#drop(link);
    if (this.#holding[side]) return void link.held[side].push(bytes);
    const to = this.#other(link, side);
    if (this.#delayMs > 0) return void setTimeout(() => this.#late(link, to, bytes), this.#delayMs);
    const takesMs = side === 'server' ? bytes.length * this.#msPerByte : 0;
    if (takesMs > 0) {
      to.write(bytes);
      link[side].pause();
      setTimeout(() => link[side].resume(), takesMs);
      return;
    }
    if (to.write(bytes)) return;
    link[side].pause();
    to.once('drain', () => link[side].resume());
  }

  #late(link: Link, to: Socket, bytes: Buffer): void {
    if (!link.silent && this.#links.has(link)) to.write(bytes);
  }

  /** One end has said its last. The other is told, behind what is under way, unless the link is silent. */
  #ended(link: Link, side: Side): void {
    if (link.silent || !this.#links.has(link)) return;
    if (this.#holding.client || this.#holding.server) return this.#drop(link);
    const tell = () => {
      if (!link.silent) this.#other(link, side).end();
    };
    if (this.#delayMs > 0) setTimeout(tell, this.#delayMs);
    else tell();
  }

  /** One end is gone altogether. */
  #closed(link: Link, side: Side): void {
    if (link.silent) return;
    this.#ended(link, side);
    if (link.client.destroyed && link.server.destroyed) this.#links.delete(link);
    else this.#other(link, side).destroySoon();
  }
}
