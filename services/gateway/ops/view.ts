/**
 * The whole system as operators see it. The replica that serves the page gathers this view from the roster,
 * from Postgres and from the fan-out, and while a page is open also from all replicas. It sends the view to
 * the page as one JSON object a second. verdict.ts sums the view up in one sentence.
 */
import { z } from 'zod';
import { gatewayStateOf, gatewaysIn, listenerStateOf } from '#shared/bus/node-state.ts';
import type { NodeStatus, Roster } from '#shared/bus/roster.ts';
import type { Row } from '#shared/wire.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { drainWarning } from './drain.ts';
import type { LogFigures } from './log-figures.ts';
import { readingLongMs, type Verdict, verdict } from './verdict.ts';

const everyMs = 1_000;
/**
 * a view is made in each turn (once a second), but clients and channels are requested from all replicas
 * only in every second turn
 */
const askEvery = 2;
const answerMs = 900;
/** seconds of throughput to keep */
const maxHistory = 300;
const maxRows = 100;

/** The answers of replicas to `clients` and `channels`. */
const clientsAnswer = z.object({ clients: z.array(z.looseObject({ id: z.number(), queuedBytes: z.number() })) });
const channelsAnswer = z.object({
  channels: z.array(
    z.object({
      name: z.string(),
      table: z.string(),
      filter: z.string().nullable(),
      columns: z.array(z.string()).nullable(),
      subscribers: z.number(),
    }),
  ),
});
export type ChannelsAnswer = z.infer<typeof channelsAnswer>;

interface OpsViewOptions {
  roster: Roster;
  figures: LogFigures;
  catalog: Catalog;
  /** this replica's name */
  node: string;
}

/**
 * The counts in a gateway's last report, and rates, which come from the difference between the last two
 * reports.
 */
interface Pace {
  at: number;
  passed: number;
  delivered: number;
  eventsPerSecond: number;
  deliveriesPerSecond: number;
  readingSince: number | null;
}

/** All that the console shows. */
interface View {
  /** ms since 1970 */
  at: number;
  /** the replica that gathered the view */
  node: string;
  /** no messages arrive over the bus, so this replica knows only about itself */
  isAlone: boolean;
  status: Verdict;
  nodes: Row[];
  log: Row;
  history: readonly Row[];
  clients: readonly Row[];
  channels: readonly Row[];
  /** the names of the attached tables */
  tables: string[];
}

/** `silentMs`: for how long the process has sent no report, although it sent no goodbye; 0: it reports. */
type Process = NodeStatus & { silentMs: number };

export class OpsView {
  readonly #options: OpsViewOptions;
  readonly #paces = new Map<string, Pace>();
  readonly #watchers = new Set<(view: string) => void>();
  #history: Row[] = [];
  #clients: Row[] = [];
  #channels: Row[] = [];
  #timer: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(options: OpsViewOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#turn++;
      this.#pace();
      if (this.#turn % askEvery === 0) void this.#askOthers();
      void this.#show();
    }, everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#watchers.clear();
  }

  /** Calls `watcher` with the view as JSON, soon and then once a second. Returns a function that ends these calls. */
  watch(watcher: (view: string) => void): () => void {
    this.#watchers.add(watcher);
    void this.#show();
    void this.#askOthers().then(() => this.#show());
    return () => void this.#watchers.delete(watcher);
  }

  /** The verdict on the system: whether changes arrive, in one sentence. */
  async status(): Promise<Verdict & { node: string }> {
    await this.#options.figures.refresh(everyMs);
    return { node: this.#options.node, ...this.#verdict() };
  }

  /**
   * Records the pace of each gateway, even while no page is open, so that a page that opens later shows the
   * last minutes.
   */
  #pace(): void {
    const now = Date.now();
    const gateways = gatewaysIn(this.#present());
    const known = new Set(gateways.map(({ instance }) => instance));
    for (const instance of this.#paces.keys()) if (!known.has(instance)) this.#paces.delete(instance);
    for (const { instance, state } of gateways) {
      const before = this.#paces.get(instance);
      if (before?.at === state.at) continue;
      const seconds = before ? (state.at - before.at) / 1_000 : 0;
      const rate = (count: number, last: number | undefined) =>
        seconds > 0 && last !== undefined ? Math.max(0, Math.round((count - last) / seconds)) : 0;
      this.#paces.set(instance, {
        at: state.at,
        passed: state.passed,
        delivered: state.delivered,
        eventsPerSecond: rate(state.passed, before?.passed),
        deliveriesPerSecond: rate(state.delivered, before?.delivered),
        readingSince: state.changes === 'reading' ? (before?.readingSince ?? now) : null,
      });
    }
    const paces = [...this.#paces.values()];
    const lags = gateways.flatMap(({ state }) => (state.lag ? [state.lag] : []));
    this.#history.push({
      at: Math.round(now / 1_000),
      // every gateway broadcasts every change, so this is a maximum and not a sum
      events: Math.max(0, ...paces.map(({ eventsPerSecond }) => eventsPerSecond)),
      deliveries: sum(paces.map(({ deliveriesPerSecond }) => deliveriesPerSecond)),
      connections: sum(gateways.map(({ state }) => state.connections)),
      p50: lags.length > 0 ? Math.max(...lags.map(({ p50 }) => p50)) : null,
      p99: lags.length > 0 ? Math.max(...lags.map(({ p99 }) => p99)) : null,
    });
    if (this.#history.length > maxHistory) this.#history = this.#history.slice(-maxHistory);
  }

  async #show(): Promise<void> {
    if (this.#watchers.size === 0) return;
    await this.#options.figures.refresh(everyMs - 100);
    const view = JSON.stringify(this.#view());
    for (const watcher of this.#watchers) watcher(view);
  }

  #view(): View {
    const { node, roster, catalog } = this.#options;
    return {
      at: Date.now(),
      node,
      isAlone: roster.deafMs > 0,
      status: this.#verdict(),
      nodes: this.#nodes(),
      log: this.#log(),
      history: this.#history,
      clients: this.#clients,
      channels: this.#channels,
      tables: catalog.tables.map(({ name }) => name).sort(),
    };
  }

  /** Requests clients and channels from all replicas, including this one. */
  async #askOthers(): Promise<void> {
    if (this.#watchers.size === 0) return;
    const { roster } = this.#options;
    const [clients, channels] = await Promise.all([
      roster.ask(null, 'clients', { limit: maxRows }, answerMs),
      roster.ask(null, 'channels', { limit: maxRows }, answerMs),
    ]);
    this.#clients = clients.flatMap(({ node, body }) => clientRows(node, body)).slice(0, maxRows);
    this.#channels = channelRows(channels.map(({ body }) => body));
  }

  /** All processes, sorted by name. */
  #processes(): Process[] {
    const { roster } = this.#options;
    const silent = new Map(roster.silent().map(({ status, silentMs }) => [status.instance, { ...status, silentMs }]));
    const present = roster.nodes().flatMap((node) => (silent.has(node.instance) ? [] : [{ ...node, silentMs: 0 }]));
    return [...present, ...silent.values()].sort((a, b) => names.compare(a.node, b.node));
  }

  #present(): Process[] {
    return this.#processes().filter(({ silentMs }) => silentMs === 0);
  }

  #verdict(): Verdict {
    const { roster, figures, node } = this.#options;
    const all = this.#processes();
    return verdict({
      self: node,
      deafMs: roster.deafMs,
      postgresSilentMs: figures.postgresSilentMs,
      log: figures.log && {
        leader: figures.log.leader,
        waitingMs: figures.waitingMs,
        waiting: figures.log.outboxDepth,
      },
      stream: figures.streamKind,
      problems: figures.problems,
      listeners: all.filter(({ role }) => role === 'listener').map(({ node, silentMs }) => ({ node, silentMs })),
      gateways: gatewaysIn(all).map(({ node, instance, state, silentMs }) => {
        return {
          node,
          silentMs,
          ready: state.ready,
          reason: state.reason,
          draining: state.draining,
          canaryLate: state.canaryLate,
          staleReason: state.staleReason,
          readingMs: this.#readingMs(instance),
          connections: state.connections,
          slow: silentMs > 0 ? 0 : state.slow,
          p99: state.lag?.p99 ?? null,
          canaryMs: state.canaryMs,
        };
      }),
    });
  }

  /** For how long a gateway has read the log instead of the stream. */
  #readingMs(instance: string): number {
    const { readingSince = null } = this.#paces.get(instance) ?? {};
    return readingSince === null ? 0 : Date.now() - readingSince;
  }

  #nodes(): Row[] {
    const { roster, figures } = this.#options;
    const present = this.#present();
    const total = sum(gatewaysIn(present).map(({ state }) => state.connections));
    return this.#processes().map((process) => {
      const { instance, node, role, version, startedAt, state, silentMs } = process;
      const common = { instance, node, role, version, startedAt, silentSeconds: Math.floor(silentMs / 1_000) };
      if (role === 'listener') {
        const { state: doing, term } = listenerStateOf(process) ?? {};
        return { ...common, state: doing, term };
      }
      // the replica is gone, and the clients in its last report are connected to other replicas by now
      if (silentMs > 0) return { ...common, share: null };
      const { eventsPerSecond = 0, deliveriesPerSecond = 0 } = this.#paces.get(instance) ?? {};
      const known = gatewayStateOf(process);
      return {
        ...common,
        ...state,
        drainWarning: drainWarning(present, instance),
        // null if this replica receives no reports: it does not know how many clients the others have
        share: roster.deafMs > 0 || !known ? null : total > 0 ? known.connections / total : 0,
        eventsPerSecond,
        deliveriesPerSecond,
        // short reads of the log are not shown, as each replica does this now and then
        changes: this.#readingMs(instance) >= readingLongMs ? 'reading' : 'tailing',
        behind: known ? Math.max(0, (figures.headAt(known.at) ?? 0) - known.seq) : null,
      };
    });
  }

  #log(): Row {
    const { figures, roster } = this.#options;
    const { log, stream, streamKind } = figures;
    return {
      postgres: log ? 'answers' : 'silent',
      stream: stream && roster.deafMs === 0 ? 'answers' : 'silent',
      streamKind,
      ...log,
      waitingSeconds: Math.floor(figures.waitingMs / 1_000),
      streamEntries: stream?.entries ?? null,
      streamBytes: stream?.bytes ?? null,
    };
  }
}

function clientRows(node: string, body: unknown): Row[] {
  const { data } = clientsAnswer.safeParse(body);
  return (data?.clients ?? []).map((client) => ({ ...client, id: `${node}/${client.id}`, node }));
}

/** The channels of all replicas, those with the most subscriptions first. */
function channelRows(bodies: readonly unknown[]): Row[] {
  const rows = new Map<string, { name: string; subscribers: number; replicas: number }>();
  for (const body of bodies) {
    for (const channel of channelsAnswer.safeParse(body).data?.channels ?? []) {
      const known = rows.get(channel.name);
      if (known) {
        known.subscribers += channel.subscribers;
        known.replicas++;
      } else rows.set(channel.name, { ...channel, replicas: 1 });
    }
  }
  return [...rows.values()].sort((a, b) => b.subscribers - a.subscribers).slice(0, maxRows);
}

/** sorts gateway-2 before gateway-10 */
const names = new Intl.Collator('en', { numeric: true });

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
