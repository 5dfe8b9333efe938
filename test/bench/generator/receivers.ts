// Owns the load generator's receiving side: so many WebSockets to a server, whose frames are counted by a process of its own, the
// C program where there is a compiler, else the same in Node. What must stay true: every frame is counted, none is looked at.

import { join } from 'node:path';
import { until } from '../../support/wait.ts';
import { cpuMicros } from '../cpu.ts';
import { LineChild } from '../lines.ts';
import { compiled } from './compile.ts';

/** One socket to be opened. */
export interface Client {
  port: number;
  path: string;
  protocol?: string;
  /** sent when it is open */
  messages?: readonly string[];
}

export interface Counted {
  upgraded: number;
  ended: number;
  small: number;
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

  /** Opens them all; resolves when each is upgraded and has got so many short frames. */
  async open(clients: readonly Client[], greetings = 0): Promise<void> {
    const { small } = await this.count();
    this.#count += clients.length;
    for (const { port, path, protocol, messages = [] } of clients)
      this.#child.tell(`open ${[port, path, protocol ?? '-', ...messages].join('\t')}`);
    const isOpen = async () => {
      const counted = await this.count();
      return counted.upgraded === this.#count && counted.small >= small + greetings * clients.length;
    };
    await until(`${clients.length} sockets are open`, isOpen, openWithinMs);
  }

  /** Throws where a server has ended a socket. */
  async count(): Promise<Counted> {
    const words = (await this.#child.ask('count')).split(' ').map(Number);
    const [, upgraded = 0, ended = 0, small = 0, changes = 0, bytes = 0] = words;
    if (ended > 0) throw new Error(`${ended} of ${this.#count} sockets were ended by their server`);
    return { upgraded, ended, small, changes, bytes };
  }

  cpuMicros(): number {
    return cpuMicros([this.#child.pid]);
  }

  stop(): Promise<void> {
    return this.#child.stop();
  }
}
