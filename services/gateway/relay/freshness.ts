/**
 * Whether changes can reach this replica: a listener leads, and everything that it had numbered a moment ago has been passed on. The one
 * truth behind `/health`, `/health/ready`, the roster, and the rhythm of positions that tells clients.
 *
 * Evidence comes as claims: "at this time a leader was there, and the log ended at this seq". A claim is worth something once this
 * replica has passed that seq on; then everything until the claim's time has arrived. Three sources make claims, so that no single
 * outage silences all: the lease in Postgres, what the leader says of itself over the bus, and each batch that a leader published.
 */
import { type Batch, drainedAtOf } from '#shared/log/batch.ts';
import type { Extent } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';

const lookMs = 250;
/** a claim this old is followed by a new question to Postgres, which a busy feed does not ask by itself */
const askEveryMs = 1_000;
/** without a newer confirmation than this, changes may be waiting that nobody has seen */
const staleAfterMs = 3_000;
/** a replica that is stale for so long, while another has been fresh for as long, is of no use to clients */
const loneMs = 5_000;

/** "At that time a leader was there, and its log ended here." */
interface Claim {
  epoch: number;
  seq: number;
  /** of performance.now() */
  at: number;
}

/** What the leader says of itself over the bus. */
export interface LeaderSaid {
  node: string;
  epoch: number;
  headSeq: number;
  /** when that was so, of performance.now() */
  at: number;
}

interface FreshnessOptions {
  /** how far this replica is */
  place: () => { epoch: number; seq: number };
  /** what the leading listener said last; null: none is heard */
  leader: () => LeaderSaid | null;
  /** asks Postgres; what it answers is also told to `extent` */
  ask: () => Promise<unknown>;
  /** a canary that should have come has not */
  canaryLate: () => boolean;
  /** for how long each other replica, of those that are heard, says that it has been fresh, in ms */
  others: () => readonly number[];
  log: Log;
}

export class Freshness {
  readonly #options: FreshnessOptions;
  /** the oldest claim that this replica has not reached yet: a newer one must not replace it, or a busy replica would reach none */
  #pending: Claim | null = null;
  #confirmedAt = Number.NEGATIVE_INFINITY;
  #askedAt = Number.NEGATIVE_INFINITY;
  #isAsking = false;
  /** when Postgres answered last, and whom it named as the leader */
  #answeredAt = Number.NEGATIVE_INFINITY;
  #holder: string | null = null;
  /** since when nobody leads, as Postgres says; null: somebody does, or it does not say */
  #leaderlessSince: number | null = null;
  #freshSince: number | null = null;
  #staleSince: number | null = null;
  #batchAt = Number.NEGATIVE_INFINITY;
  #startedAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FreshnessOptions) {
    this.#options = options;
  }

  start(): void {
    this.#startedAt = performance.now();
    this.#look(this.#startedAt);
    this.#timer = setInterval(() => this.#look(performance.now()), lookMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  get isFresh(): boolean {
    return this.#freshSince !== null;
  }

  /** For how long it has been fresh, without a pause; 0: it is not. */
  get freshMs(): number {
    return this.#freshSince === null ? 0 : Math.max(1, Math.round(performance.now() - this.#freshSince));
  }

  /** For how long nothing has confirmed that changes arrive; 0: they do. */
  get staleMs(): number {
    if (this.#staleSince === null) return 0;
    const since = Math.min(this.#staleSince, Math.max(this.#confirmedAt, this.#startedAt));
    return Math.max(1, Math.round(performance.now() - since));
  }

  /** Postgres has answered this replica a moment ago. */
  get hearsPostgres(): boolean {
    return performance.now() - this.#answeredAt < staleAfterMs;
  }

  /** Clients are better served elsewhere: another replica is fresh. Where none is, taking this one away would help nobody. */
  get isLeftBehind(): boolean {
    return this.staleMs > loneMs && this.#options.others().some((freshMs) => freshMs > loneMs);
  }

  /** Who leads, in words. */
  get listener(): string {
    const now = performance.now();
    if (this.#leaderlessSince !== null) return `none leads since ${seconds(now - this.#leaderlessSince)}`;
    if (this.hearsPostgres && this.#holder !== null) return `${nodeOf(this.#holder)} leads`;
    const said = this.#options.leader();
    return said ? `${said.node} leads` : 'unknown: neither Postgres nor a listener answers';
  }

  /** Why it is not fresh; null: it is. */
  get reason(): string | null {
    if (this.isFresh) return null;
    if (this.#leaderlessSince !== null)
      return `no listener leads (${seconds(performance.now() - this.#leaderlessSince)})`;
    if (this.#pending) return 'this replica is behind the log';
    if (performance.now() - this.#confirmedAt < staleAfterMs) return 'a canary is missing: changes may not arrive';
    return 'neither Postgres nor a listener confirms that changes arrive';
  }

  /** What Postgres says of the log, whoever asked; asked at `at`. */
  extent({ epoch, newest, holder }: Extent, at: number): void {
    this.#answeredAt = performance.now();
    this.#holder = holder;
    if (holder === null) this.#leaderlessSince ??= at;
    else {
      this.#leaderlessSince = null;
      this.#claim({ epoch, seq: newest, at });
    }
    this.#askedAt = Math.max(this.#askedAt, at);
  }

  /** A batch was passed on. One out of the log in Postgres does not say when it was drained. */
  passed(batch: Batch): void {
    const drainedAtMs = drainedAtOf(batch);
    if (drainedAtMs === 0) return;
    const now = performance.now();
    const at = now - Math.max(0, Date.now() - drainedAtMs);
    this.#batchAt = Math.max(this.#batchAt, at);
    this.#confirm(at);
  }

  #claim(claim: Claim): void {
    this.#pending ??= claim;
    this.#settle();
  }

  #settle(): void {
    const claim = this.#pending;
    if (!claim) return;
    const { epoch, seq } = this.#options.place();
    if (claim.epoch > epoch || (claim.epoch === epoch && claim.seq > seq)) return;
    this.#pending = null;
    // of a history that is no more, it says nothing
    if (claim.epoch === epoch) this.#confirm(claim.at);
  }

  #confirm(at: number): void {
    this.#confirmedAt = Math.max(this.#confirmedAt, at);
  }

  #look(now: number): void {
    const { leader, canaryLate, log } = this.#options;
    this.#settle();
    // where Postgres answers, it knows best: a leader that hangs in a drain still says that it leads
    const said = this.hearsPostgres ? null : leader();
    if (said && said.at > this.#confirmedAt) this.#claim({ epoch: said.epoch, seq: said.headSeq, at: said.at });
    if (!this.#isAsking && now - this.#askedAt > askEveryMs) void this.#ask();
    const isConfirmed = now - this.#confirmedAt < staleAfterMs;
    // canaries go the whole way of a change; where they do not come, only changes that do are a better witness
    const isFresh = isConfirmed && (!canaryLate() || now - this.#batchAt < staleAfterMs);
    if (isFresh ? this.#freshSince !== null : this.#staleSince !== null) return;
    // a replica that begins has heard nobody yet
    if (!isFresh && this.#freshSince === null && now - this.#startedAt < staleAfterMs) return;
    if (isFresh) {
      if (this.#staleSince !== null) log.info({ ms: this.staleMs }, 'changes can arrive again');
      this.#freshSince = now;
      this.#staleSince = null;
    } else {
      this.#staleSince = now;
      this.#freshSince = null;
      log.warn({ reason: this.reason }, 'changes may not arrive');
    }
  }

  /** Its answer comes by `extent`. */
  async #ask(): Promise<void> {
    this.#isAsking = true;
    this.#askedAt = performance.now();
    try {
      await this.#options.ask();
    } catch {
      // silence is what is looked for
    } finally {
      this.#isAsking = false;
    }
  }
}

/** `listener-1/4711/lxk3f9` is a process of listener-1. */
function nodeOf(holder: string): string {
  return holder.split('/')[0]!;
}

const seconds = (ms: number) => `${Math.round(ms / 1_000)} s`;
