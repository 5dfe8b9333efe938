/**
 * The whole system as operators see it, gathered by the replica that serves the page: from the
 * roster, from Postgres and the fan-out, and while a page is open also from all replicas. Shown as
 * tables (tables.ts) and summed up in one sentence (verdict.ts).
 */
import { z } from 'zod';
import { gatewayStateOf, gatewaysIn } from '#shared/bus/node-state.ts';
import type { Roster } from '#shared/bus/roster.ts';
import type { Row } from '#shared/wire.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { drainWarning } from './drain.ts';
import type { LogFigures } from './log-figures.ts';
import { LiveTable } from './tables.ts';
import { readingLongMs, type Verdict, verdict } from './verdict.ts';

const everyMs = 1_000;
/** clients and channels are requested from all replicas in every second turn */
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

/** Of a gateway's last report: rates are the difference to the next one. */
interface Pace {
  at: number;
  passed: number;
  delivered: number;
  eventsPerSecond: number;
  deliveriesPerSecond: number;
  readingSince: number | null;
}

export class OpsView {
  readonly tables: ReadonlyMap<string, LiveTable>;
  readonly #options: OpsViewOptions;
  readonly #paces = new Map<string, Pace>();
  #history: Row[] = [];
  #timer: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(options: OpsViewOptions) {
    this.#options = options;
    const onWatched = () => void this.#show(true);
    const table = (name: string, key: string) => new LiveTable(name, key, onWatched);
    const tables = [
      table('status', 'id'),
      table('nodes', 'instance'),
      table('log', 'id'),
      table('history', 'at'),
      table('channels', 'name'),
      table('clients', 'id'),
      table('tables', 'name'),
    ];
    this.tables = new Map(tables.map((each) => [each.name, each]));
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#turn++;
      this.#pace();
      void this.#show(this.#turn % askEvery === 0);
    }, everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Whether changes arrive, in one sentence. */
  async status(): Promise<Verdict & { node: string }> {
    await this.#options.figures.refresh(everyMs);
    return { node: this.#options.node, ...this.#verdict() };
  }

  get #isWatched(): boolean {
    return [...this.tables.values()].some(({ isWatched }) => isWatched);
  }

  /**
   * Records the pace of each gateway, also while no page is open: a page that opens then shows the
   * last minutes.
   */
  #pace(): void {
    const now = Date.now();
    const gateways = gatewaysIn(this.#options.roster.nodes());
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
      // every gateway broadcasts every change
      events: Math.max(0, ...paces.map(({ eventsPerSecond }) => eventsPerSecond)),
      deliveries: sum(paces.map(({ deliveriesPerSecond }) => deliveriesPerSecond)),
      connections: sum(gateways.map(({ state }) => state.connections)),
      p50: lags.length > 0 ? Math.max(...lags.map(({ p50 }) => p50)) : null,
      p99: lags.length > 0 ? Math.max(...lags.map(({ p99 }) => p99)) : null,
    });
    if (this.#history.length > maxHistory) this.#history = this.#history.slice(-maxHistory);
  }

  /** `all`: also the tables for which other replicas are asked. */
  async #show(all: boolean): Promise<void> {
    if (!this.#isWatched) return;
    const { figures, roster } = this.#options;
    const table = (name: string) => this.tables.get(name)!;
    await figures.refresh(everyMs - 100);
    // the time, so that a page notices when this replica hangs
    table('status').set([{ id: 1, at: Math.floor(Date.now() / 1_000), node: this.#options.node, ...this.#verdict() }]);
    table('nodes').set(this.#nodes());
    table('log').set([this.#log()]);
    table('history').set(this.#history);
    table('tables').set(
      this.#options.catalog.tables.map(({ name, keyColumns, columns }) => ({
        name,
        key: keyColumns,
        columns: columns.map((column) => column.name),
      })),
    );
    if (!all) return;
    const [clients, channels] = await Promise.all([
      table('clients').isWatched ? roster.ask(null, 'clients', { limit: maxRows }, answerMs) : null,
      table('channels').isWatched ? roster.ask(null, 'channels', { limit: maxRows }, answerMs) : null,
    ]);
    if (clients) table('clients').set(clients.flatMap(({ node, body }) => clientRows(node, body)).slice(0, maxRows));
    if (channels) table('channels').set(channelRows(channels.map(({ body }) => body)));
  }

  #verdict(): Verdict {
    const { roster, figures, node } = this.#options;
    const heard = roster.nodes();
    const silent = roster.silent();
    const silentMs = new Map(silent.map(({ status, silentMs }) => [status.instance, silentMs]));
    const lost = silent
      .map(({ status }) => status)
      .filter(({ instance }) => !heard.some((is) => is.instance === instance));
    const all = [...heard, ...lost];
    return verdict({
      self: node,
      deafMs: roster.deafMs,
      postgresSilentMs: figures.postgresSilentMs,
      log: figures.log && {
        leader: figures.log.leader,
        waitingMs: figures.waitingMs,
        waiting: figures.log.outboxDepth,
      },
      problems: figures.problems,
      listeners: all
        .filter(({ role }) => role === 'listener')
        .map(({ node, instance }) => ({ node, silentMs: silentMs.get(instance) ?? 0 })),
      gateways: gatewaysIn(all).map(({ node, instance, state }) => {
        return {
          node,
          silentMs: silentMs.get(instance) ?? 0,
          ready: state.ready,
          reason: state.reason,
          draining: state.draining,
          canaryLate: state.canaryLate,
          staleReason: state.staleReason,
          readingMs: this.#readingMs(instance),
          connections: state.connections,
          slow: state.slow,
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
    const heard = roster.nodes();
    const silent = new Map(roster.silent().map(({ status, silentMs }) => [status.instance, { status, silentMs }]));
    const lost = [...silent.values()].map(({ status }) => status);
    const all = [...heard, ...lost.filter(({ instance }) => !heard.some((is) => is.instance === instance))];
    const total = sum(gatewaysIn(heard).map(({ state }) => state.connections));
    const alone = roster.deafMs > 0;
    return all.map((status) => {
      const { instance, node, role, version, startedAt, state } = status;
      const silentMs = silent.get(instance)?.silentMs ?? 0;
      const common = { instance, node, role, version, startedAt, silentSeconds: Math.floor(silentMs / 1_000) };
      if (role === 'listener') return { ...common, state: state['state'], term: state['term'] };
      const { eventsPerSecond = 0, deliveriesPerSecond = 0 } = this.#paces.get(instance) ?? {};
      const readingMs = this.#readingMs(instance);
      const known = gatewayStateOf(status);
      return {
        ...common,
        ...state,
        at: undefined,
        /** this replica neither hears others nor is heard over the bus: it only knows about itself */
        alone,
        drainWarning: drainWarning(heard, instance),
        share: alone || !known ? null : total > 0 ? known.connections / total : 0,
        eventsPerSecond,
        deliveriesPerSecond,
        // each replica reads the log for a moment now and then
        changes: readingMs >= readingLongMs ? 'reading' : 'tailing',
        behind: known ? Math.max(0, (figures.headAt(known.at) ?? 0) - known.seq) : null,
      };
    });
  }

  #log(): Row {
    const { figures, roster } = this.#options;
    const { log, stream } = figures;
    return {
      id: 1,
      postgres: log ? 'answers' : 'silent',
      redis: stream && roster.deafMs === 0 ? 'answers' : 'silent',
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

/** The channels of all replicas, those with most subscriptions first. */
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

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
