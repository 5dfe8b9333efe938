// Owns the load generator's receiving side: so many WebSockets to a server, whose frames are counted by a process of its own, the
// C program where there is a compiler, else the same in Node. What must stay true: every frame is counted, none is looked at.

import { join } from 'node:path';
import { until } from '../../support/wait.ts';
import { cpuMicros } from '../cpu.ts';
import { LineChild } from '../lines.ts';
import { compiled } from './compile.ts';

/** How clients come to a server; their channels are numbers, none: all changes. */
export interface Door {
  port: number;
  path(channels: readonly number[]): string;
  protocol?: string | undefined;
  /** what a client sends when it is open */
  messages(channels: readonly number[]): string[];
  /** short frames that a client gets until it is subscribed */
  greetings(channels: readonly number[]): number;
}

export interface Counted {
  /** upgraded and subscribed */
  ready: number;
  ended: number;
  changes: number;
  /** of the changes' payloads */
  bytes: number;
}

/** Frames with a payload of at least so many bytes are changes; what a server says besides is shorter. */
const changeBytes = 200;
/** with a gateway's answer to each */
const openWithinMs = 60_000;

export class Receivers {
  readonly #child: LineChild;
  #count = 0;

  private constructor(child: LineChild) {
    this.#child = child;
  }

  static async start(folder: string): Promise<Receivers> {
    const program = await compiled(join(import.meta.dirname, 'receiver.c'), folder);
    const args = [String(changeBytes)];
    const child =
      program === null
        ? await LineChild.node('the generator', join(import.meta.dirname, 'receiver.ts'), args)
        : await LineChild.start('the generator', program, args);
    return new Receivers(child);
  }

  /**
   * Opens a client for each list of channels (empty: all changes); resolves when each is upgraded and subscribed. `port`: of one
   * replica.
   */
  async open(server: Door, clients: readonly (readonly number[])[], port = server.port): Promise<void> {
    this.#count += clients.length;
    for (const channels of clients) {
      const words = [
        port,
        server.greetings(channels),
        server.path(channels),
        server.protocol ?? '-',
        ...server.messages(channels),
      ];
      this.#child.tell(`open ${words.join('\t')}`);
    }
    const isOpen = async () => (await this.count()).ready === this.#count;
    await until(`${clients.length} sockets are open`, isOpen, openWithinMs);
  }

  /** Throws where a server has ended a socket. */
  async count(): Promise<Counted> {
    const words = (await this.#child.ask('count')).split(' ').map(Number);
    const [, ready = 0, ended = 0, changes = 0, bytes = 0] = words;
    if (ended > 0) throw new Error(`${ended} of ${this.#count} sockets were ended by their server`);
    return { ready, ended, changes, bytes };
  }

  cpuMicros(): number {
    return cpuMicros([this.#child.pid]);
  }

  stop(): Promise<void> {
    return this.#child.stop();
  }
}
