/**
 * The list of running processes. Each process sends its status over the bus once a second, and receives the status of
 * all other processes. The roster also carries requests from one process to others, and their answers. Operators and
 * the balancing of connections use the roster; none of Plank's promises depends on it.
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Log } from '../process/logger.ts';
import type { Bus } from './bus.ts';

const everyMs = 1_000;
/** if a process has sent nothing for this long, it is no longer listed */
const goneMs = 4_500;
/** `silent()` reports a process that has sent neither a status nor a goodbye for this long */
const silentMs = 3_000;
/** `silent()` no longer reports a process that has sent nothing for this long */
const missedMs = 300_000;

/** The status of a process. The fields of `state` depend on the role. */
const statusSchema = z.object({
  /** identifies this run of the process; after a restart, the process has another `instance` */
  instance: z.string(),
  node: z.string(),
  role: z.enum(['gateway', 'listener']),
  version: z.string(),
  /** ms since 1970, by the clock of the process */
  startedAt: z.number(),
  state: z.record(z.string(), z.unknown()),
});
export type NodeStatus = z.infer<typeof statusSchema>;

const answerSchema = z.object({
  instance: z.string(),
  node: z.string(),
  /** the answer; if there is none, `error` says why */
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
    /** the receiver; null: every process */
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
  /** returns the state of this process, as plain JSON */
  state: () => Record<string, unknown>;
  log: Log;
}

export class Roster {
  readonly instance = randomUUID();
  readonly #options: RosterOptions;
  readonly #startedAt = Date.now();
  readonly #nodes = new Map<string, { status: NodeStatus; heardAt: number }>();
  readonly #handlers = new Map<string, Handler>();
  readonly #pending = new Map<string, (answer: Answer) => void>();
  #timer: NodeJS.Timeout | undefined;
  #off: (() => void) | undefined;
  /** when this process last received its own status, and since when it has received its own status without a gap */
  #heardSelfAt = performance.now();
  #hearsSince = this.#heardSelfAt;

  constructor(options: RosterOptions) {
    this.#options = options;
  }

  start(): void {
    this.#heardSelfAt = this.#hearsSince = performance.now();
    this.#off = this.#options.bus.listen((message) => this.#receive(message));
    this.#timer = setInterval(() => this.announce(), everyMs);
    this.announce();
  }

  /** Sends a goodbye, so that the other processes need not wait for a timeout. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#send({ type: 'gone', instance: this.instance });
    this.#off?.();
  }

  /** Sends the status now, without waiting for the next second. */
  announce(): void {
    const status = this.#status();
    this.#nodes.set(this.instance, { status, heardAt: performance.now() });
    this.#send({ type: 'status', ...status });
  }

  /** Every process that has sent its status within the last 4.5 s, including this one, sorted by name. */
  nodes(): NodeStatus[] {
    const now = performance.now();
    return [...this.#nodes.values()]
      .filter(({ heardAt }) => heardAt >= now - goneMs)
      .map(({ status }) => status)
      .sort(byName);
  }

  /**
   * Processes that stopped sending within the last five minutes and sent no goodbye, unless another process
   * of the same name and role replaced them. Returns none while this process itself receives nothing.
   */
  silent(): { status: NodeStatus; silentMs: number }[] {
    const now = performance.now();
    if (this.deafMs > 0 || now - this.#hearsSince < silentMs) return [];
    return [...this.#nodes.values()]
      .filter(({ heardAt }) => now - heardAt >= silentMs)
      .map(({ status, heardAt }) => ({ status, silentMs: Math.round(now - heardAt) }))
      .sort((a, b) => byName(a.status, b.status));
  }

  /** 0 while the bus works. Otherwise, for how many ms this process has not received even its own status. */
  get deafMs(): number {
    const ms = performance.now() - this.#heardSelfAt;
    return ms >= silentMs ? Math.round(ms) : 0;
  }

  /**
   * The time when the status of the process `instance` last arrived, as performance.now(); null: no status has arrived.
   */
  heardAt(instance: string): number | null {
    return this.#nodes.get(instance)?.heardAt ?? null;
  }

  /**
   * Sets the handler that answers requests with the name `what`. If the handler throws, the answer's `error` is the
   * message of the error.
   */
  handle(what: string, handler: Handler): void {
    this.#handlers.set(what, handler);
  }

  /**
   * Sends a request to the process `instance`; if `instance` is null, to all processes, including this one. Resolves
   * when all answers have come, or after `waitMs` with the answers that have come so far.
   */
  ask(instance: string | null, what: string, args: Record<string, unknown> = {}, waitMs = 2_000): Promise<Answer[]> {
    const id = randomUUID();
    const answers: Answer[] = [];
    const awaited = new Set(instance === null ? this.nodes().map((node) => node.instance) : [instance]);
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#pending.delete(id);
        resolve(answers);
      };
      const timer = setTimeout(done, waitMs);
      this.#pending.set(id, (answer) => {
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

  #receive(received: unknown): void {
    const { data: message } = messageSchema.safeParse(received);
    // another version of Plank may send messages that this version cannot read
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
        this.#pending.get(id)?.(answer);
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
    // A new process should get the status of all others at once, so this process does not wait until the next second.
    const isNew = !this.#nodes.has(status.instance);
    this.#nodes.set(status.instance, { status, heardAt: now });
    if (isNew && status.instance !== this.instance) this.announce();
  }

  /** Answers a request. Answers an unknown request with an error, so that the other process does not wait. */
  async #answer({ id, what, args }: Message & { type: 'ask' }): Promise<void> {
    const from = { type: 'answer', id, instance: this.instance, node: this.#options.node } as const;
    const handler = this.#handlers.get(what);
    if (!handler) return this.#send({ ...from, error: `a ${this.#options.role} knows nothing of ${what}` });
    try {
      this.#send({ ...from, body: await handler(args) });
    } catch (error) {
      this.#options.log.warn({ err: error, what }, 'could not answer a request over the bus');
      this.#send({ ...from, error: error instanceof Error ? error.message : String(error) });
    }
  }
}

/**
 * There is one collator for all calls, because creating one takes longer than everything else that an idle gateway does
 * with the roster.
 */
const names = new Intl.Collator('en', { numeric: true });

function byName(a: NodeStatus, b: NodeStatus): number {
  return names.compare(a.node, b.node) || a.startedAt - b.startedAt;
}
