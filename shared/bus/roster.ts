/**
 * Who is there: each process says over the bus, once a second, what it is and how it fares, and hears the same of all others.
 * Also how one process asks the others for something and gets their answers. A view for operators and for spreading
 * connections; no guarantee of Plank's rests on it.
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Log } from '../process/logger.ts';
import type { Bus } from './bus.ts';

const everyMs = 1_000;
/** who has been silent for so long is gone */
const goneMs = 4_500;
/** who has been silent for so long, without a goodbye, does not answer … */
const silentMs = 3_000;
/** … and is spoken of for so long */
const missedMs = 300_000;

/** What every process says of itself; `state` is what its role adds. */
const statusSchema = z.object({
  /** of this run of the process: a restarted one is another */
  instance: z.string(),
  node: z.string(),
  role: z.enum(['gateway', 'listener']),
  version: z.string(),
  /** ms since 1970, on its own clock */
  startedAt: z.number(),
  state: z.record(z.string(), z.unknown()),
});
export type NodeStatus = z.infer<typeof statusSchema>;

const answerSchema = z.object({
  instance: z.string(),
  node: z.string(),
  /** what was asked for, or why it was not to be had */
  body: z.unknown().optional(),
  error: z.string().optional(),
});
export type Answer = z.infer<typeof answerSchema>;

const messageSchema = z.discriminatedUnion('type', [
  statusSchema.extend({ type: z.literal('status') }),
  z.object({ type: z.literal('gone'), instance: z.string() }),
  z.object({
    type: z.literal('ask'),
    id: z.string(),
    /** of whom; null: of everybody */
    instance: z.string().nullable(),
    what: z.string(),
    args: z.record(z.string(), z.unknown()),
  }),
  answerSchema.extend({ type: z.literal('answer'), id: z.string() }),
]);
type Message = z.infer<typeof messageSchema>;

type Handler = (args: Record<string, unknown>) => unknown;

interface RosterOptions {
  bus: Bus;
  node: string;
  role: NodeStatus['role'];
  version: string;
  /** plain JSON */
  state: () => Record<string, unknown>;
  log: Log;
}

export class Roster {
  readonly instance = randomUUID();
  readonly #options: RosterOptions;
  readonly #startedAt = Date.now();
  readonly #nodes = new Map<string, { status: NodeStatus; heardAt: number }>();
  readonly #handlers = new Map<string, Handler>();
  readonly #asked = new Map<string, (answer: Answer) => void>();
  #timer: NodeJS.Timeout | undefined;
  #off: (() => void) | undefined;
  /** when this process last heard itself, and since when without a pause */
  #heardSelfAt = performance.now();
  #hearsSince = this.#heardSelfAt;

  constructor(options: RosterOptions) {
    this.#options = options;
  }

  start(): void {
    this.#heardSelfAt = this.#hearsSince = performance.now();
    this.#off = this.#options.bus.listen((message) => this.#hear(message));
    this.#timer = setInterval(() => this.announce(), everyMs);
    this.announce();
  }

  /** The others know at once. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#send({ type: 'gone', instance: this.instance });
    this.#off?.();
  }

  /** Says now, and not within a second, how this process fares. */
  announce(): void {
    const status = this.#status();
    this.#nodes.set(this.instance, { status, heardAt: performance.now() });
    this.#send({ type: 'status', ...status });
  }

  /** Everybody who has been heard lately, this process first to last by name. */
  nodes(): NodeStatus[] {
    const now = performance.now();
    return [...this.#nodes.values()]
      .filter(({ heardAt }) => heardAt >= now - goneMs)
      .map(({ status }) => status)
      .sort(byName);
  }

  /**
   * Those that have fallen silent without a goodbye within the last five minutes, and that no other of the same name has replaced.
   * None while this process hears nobody.
   */
  silent(): { status: NodeStatus; silentMs: number }[] {
    const now = performance.now();
    if (this.deafMs > 0 || now - this.#hearsSince < silentMs) return [];
    return [...this.#nodes.values()]
      .filter(({ heardAt }) => now - heardAt >= silentMs)
      .map(({ status, heardAt }) => ({ status, silentMs: Math.round(now - heardAt) }))
      .sort((a, b) => byName(a.status, b.status));
  }

  /** For how long this process has not even heard itself, in ms: the bus does not work. 0: it does. */
  get deafMs(): number {
    const ms = performance.now() - this.#heardSelfAt;
    return ms >= silentMs ? Math.round(ms) : 0;
  }

  /** When this process was heard last, of performance.now(); null: it is not known. */
  heardAt(instance: string): number | null {
    return this.#nodes.get(instance)?.heardAt ?? null;
  }

  /** Answers what others ask by this name; what it throws is the answer's `error`. */
  handle(what: string, handler: Handler): void {
    this.#handlers.set(what, handler);
  }

  /**
   * Asks one process (`instance`), or with null all that know an answer, this one too. Resolves with the answers that came within
   * `waitMs`: as soon as the one, or everybody who is there, has answered.
   */
  ask(instance: string | null, what: string, args: Record<string, unknown> = {}, waitMs = 2_000): Promise<Answer[]> {
    const id = randomUUID();
    const answers: Answer[] = [];
    const awaited = new Set(instance === null ? this.nodes().map((node) => node.instance) : [instance]);
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#asked.delete(id);
        resolve(answers);
      };
      const timer = setTimeout(done, waitMs);
      this.#asked.set(id, (answer) => {
        answers.push(answer);
        awaited.delete(answer.instance);
        if (awaited.size === 0) done();
      });
      this.#send({ type: 'ask', id, instance, what, args });
    });
  }

  #status(): NodeStatus {
    const { node, role, version, state } = this.#options;
    return { instance: this.instance, node, role, version, startedAt: this.#startedAt, state: state() };
  }

  #send(message: Message): void {
    this.#options.bus.send(message);
  }

  #hear(heard: unknown): void {
    const { data: message } = messageSchema.safeParse(heard);
    // another version of Plank may speak of things that this one does not know
    if (!message) return;
    switch (message.type) {
      case 'status': {
        const { type: _, ...status } = message;
        this.#note(status);
        return;
      }
      case 'gone':
        this.#nodes.delete(message.instance);
        return;
      case 'ask':
        if (message.instance === null || message.instance === this.instance) void this.#answer(message);
        return;
      case 'answer': {
        const { type: _, id, ...answer } = message;
        this.#asked.get(id)?.(answer);
      }
    }
  }

  #note(status: NodeStatus): void {
    const now = performance.now();
    if (status.instance === this.instance) {
      if (this.deafMs > 0) this.#hearsSince = now;
      this.#heardSelfAt = now;
    }
    for (const [instance, { status: other, heardAt }] of this.#nodes) {
      const isReplaced = other.node === status.node && other.role === status.role && now - heardAt >= silentMs;
      if (isReplaced || now - heardAt > missedMs) this.#nodes.delete(instance);
    }
    // a new one must not take itself for the only one until the next second
    const isNew = !this.#nodes.has(status.instance);
    this.#nodes.set(status.instance, { status, heardAt: now });
    if (isNew && status.instance !== this.instance) this.announce();
  }

  /** Who does not know what is asked says so: nobody is to wait for it. */
  async #answer({ id, what, args }: Message & { type: 'ask' }): Promise<void> {
    const from = { type: 'answer', id, instance: this.instance, node: this.#options.node } as const;
    const handler = this.#handlers.get(what);
    if (!handler) return this.#send({ ...from, error: `a ${this.#options.role} knows nothing of ${what}` });
    try {
      this.#send({ ...from, body: await handler(args) });
    } catch (error) {
      this.#options.log.warn({ err: error, what }, 'could not answer what was asked over the bus');
      this.#send({ ...from, error: error instanceof Error ? error.message : String(error) });
    }
  }
}

/** kept: to make one takes longer than all the rest of what an idle gateway does with the roster */
const names = new Intl.Collator('en', { numeric: true });

function byName(a: NodeStatus, b: NodeStatus): number {
  return names.compare(a.node, b.node) || a.startedAt - b.startedAt;
}
