/**
 * Whether changes can reach this replica: a listener leads, and this replica has delivered every
 * change that the listener had numbered a moment ago. `/health`, `/health/ready`, the roster and
 * the positions that are sent to quiet clients all rely on this one answer.
 *
 * Evidence comes as claims: "at this time there was a leader, and the log ended at this seq". Once
 * this replica has delivered that seq, the claim confirms that everything up to its time has
 * arrived. Three sources make claims, so that no single outage silences all of them: the lease in
 * Postgres, the leader's own report over the bus, and each batch that a leader published.
 */
import { type Batch, drainedAtOf } from '#shared/log/batch.ts';
import type { Extent } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';

const lookMs = 250;
/** this replica asks Postgres at this interval, because a busy feed does not ask by itself */
const askEveryMs = 1_000;
/** if the last confirmation is older than this, there may be changes that have not arrived */
const staleAfterMs = 3_000;
/** a replica that was stale for this long should have no clients, if another replica was fresh for as long */
const loneMs = 5_000;

/** "At this time there was a leader, and the log ended at this seq." */
interface Claim {
  epoch: number;
  seq: number;
  /** on the clock of performance.now() */
  at: number;
}

/** What the leader reports over the bus. */
export interface LeaderReport {
  node: string;
  epoch: number;
  headSeq: number;
  /** when the report was true, on the clock of performance.now() */
  at: number;
}

interface FreshnessOptions {
  /** this replica's position */
  place: () => { epoch: number; seq: number };
  /** the leading listener's last report; null: there is none */
  leader: () => LeaderReport | null;
  /** asks Postgres where the log ends; must pass the answer to `extent` */
  ask: () => Promise<unknown>;
  /** whether a canary should have arrived and has not */
  canaryLate: () => boolean;
  /** for how long each other replica that reports has been fresh, in ms */
  others: () => readonly number[];
  log: Log;
}

export class Freshness {
  readonly #options: FreshnessOptions;
  /**
   * the oldest claim that this replica has not reached yet. A newer claim must not replace the
   * oldest one, else a busy replica would never reach a claim.
   */
  #pending: Claim | null = null;
  #confirmedAt = Number.NEGATIVE_INFINITY;
  #askedAt = Number.NEGATIVE_INFINITY;
  #isAsking = false;
  /** when Postgres last answered, and the leader that it named */
  #answeredAt = Number.NEGATIVE_INFINITY;
  #holder: string | null = null;
  /** since when no listener leads, as Postgres last answered; null: a listener leads, or no answer yet */
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

  /** For how long this replica has been fresh without a pause, in ms; 0: it is not fresh. */
  get freshMs(): number {
    return this.#freshSince === null ? 0 : Math.max(1, Math.round(performance.now() - this.#freshSince));
  }

  /** For how long nothing has confirmed that changes arrive, in ms; 0: this replica is not stale. */
  get staleMs(): number {
    if (this.#staleSince === null) return 0;
    const since = Math.min(this.#staleSince, Math.max(this.#confirmedAt, this.#startedAt));
    return Math.max(1, Math.round(performance.now() - since));
  }

  /** Whether Postgres answered this replica, or the feed, within the last 3 s. */
  get hearsPostgres(): boolean {
    return performance.now() - this.#answeredAt < staleAfterMs;
  }

  /**
   * Whether clients are better served elsewhere: this replica is stale, and another is fresh. If no
   * other replica is fresh, taking this one away would not help.
   */
  get isLeftBehind(): boolean {
    return this.staleMs > loneMs && this.#options.others().some((freshMs) => freshMs > loneMs);
  }

  /** A text that names the leading listener. */
  get listener(): string {
    const now = performance.now();
    if (this.#leaderlessSince !== null) return `none leads since ${seconds(now - this.#leaderlessSince)}`;
    if (this.hearsPostgres && this.#holder !== null) return `${nodeOf(this.#holder)} leads`;
    const report = this.#options.leader();
    return report ? `${report.node} leads` : 'unknown: neither Postgres nor a listener answers';
  }

  /** Why this replica is not fresh; null: it is fresh. */
  get reason(): string | null {
    if (this.isFresh) return null;
    if (this.#leaderlessSince !== null)
      return `no listener leads (${seconds(performance.now() - this.#leaderlessSince)})`;
    if (this.#pending) return 'this replica is behind the log';
    if (performance.now() - this.#confirmedAt < staleAfterMs) return 'a canary is missing: changes may not arrive';
    return 'neither Postgres nor a listener confirms that changes arrive';
  }

  /** Called when Postgres answered where the log ends. `at`: when this object or the feed asked. */
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

  /** Called after a batch was delivered. A batch from the log in Postgres has no drain time, so it confirms nothing. */
  delivered(batch: Batch): void {
    const drainedAtMs = drainedAtOf(batch);
    if (drainedAtMs === 0) return;
    const now = performance.now();
    const at = now - Math.max(0, Date.now() - drainedAtMs);
    this.#batchAt = Math.max(this.#batchAt, at);
    this.#confirm(at);
  }

  #claim(claim: Claim): void {
    this.#pending ??= claim;
    this.#resolvePending();
  }

  /** The pending claim becomes a confirmation once this replica has delivered the claim's seq. */
  #resolvePending(): void {
    const claim = this.#pending;
    if (!claim) return;
    const { epoch, seq } = this.#options.place();
    if (claim.epoch > epoch || (claim.epoch === epoch && claim.seq > seq)) return;
    this.#pending = null;
    // a claim of a former epoch confirms nothing
    if (claim.epoch === epoch) this.#confirm(claim.at);
  }

  #confirm(at: number): void {
    this.#confirmedAt = Math.max(this.#confirmedAt, at);
  }

  #look(now: number): void {
    const { leader, canaryLate, log } = this.#options;
    this.#resolvePending();
    // if Postgres answers, its answer counts, not the leader's report: a leader that hangs in a drain still reports
    const report = this.hearsPostgres ? null : leader();
    if (report && report.at > this.#confirmedAt)
      this.#claim({ epoch: report.epoch, seq: report.headSeq, at: report.at });
    if (!this.#isAsking && now - this.#askedAt > askEveryMs) void this.#ask();
    const isConfirmed = now - this.#confirmedAt < staleAfterMs;
    // A late canary means that changes may not arrive, because a canary takes the same way as a change.
    // Only a batch that did arrive lately disproves this.
    const isFresh = isConfirmed && (!canaryLate() || now - this.#batchAt < staleAfterMs);
    if (isFresh ? this.#freshSince !== null : this.#staleSince !== null) return;
    // a replica that has just started has no evidence yet
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

  /** The answer comes by `extent`. */
  async #ask(): Promise<void> {
    this.#isAsking = true;
    this.#askedAt = performance.now();
    try {
      await this.#options.ask();
    } catch {
      // without an answer there is no new evidence, so the last confirmation grows old
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
