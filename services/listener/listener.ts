/**
 * One listener. Any number of listeners may run; one of them leads.
 *
 *   standby   tries to take the lead at intervals. It succeeds when no other listener holds a valid lease.
 *   leading   wakes (doorbell) → drains (sequencer) → publishes (publishing). The next drain runs while the last batch
 *             is published. When this listener is deposed or loses its connection, it becomes a standby again.
 *
 * Changes are published only after their drain has committed. If a leader dies between the commit and the
 * publication, the next leader finds the changes in the log and publishes them.
 */
import { type Bus, LocalBus } from '#shared/bus/bus.ts';
import type { ListenerState } from '#shared/bus/node-state.ts';
import { Roster } from '#shared/bus/roster.ts';
import type { Publisher } from '#shared/log/fanout.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { createPool, type Pool } from '#shared/postgres/postgres.ts';
import type { ListenerConfig } from '#shared/process/config.ts';
import type { Service } from '#shared/process/lifecycle.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { version } from '#shared/process/version.ts';
import { Backoff, once, settlesWithin, sleep } from '#shared/waiting.ts';
import { sendCanaries } from './canary.ts';
import { Doorbell, type Wake } from './doorbell.ts';
import { DrainDeadline } from './drain-deadline.ts';
import { keepGauges } from './gauges.ts';
import { inspectCapture } from './inspection.ts';
import { Publishing } from './publishing.ts';
import { keepRetention } from './retention.ts';
import { Deposed, type Drained, type Lead, Sequencer } from './sequencer.ts';

/** after publishing has failed, it is tried again at this interval, and with every new batch */
const publishRetryMs = 500;
/**
 * after a drain, the listener waits at most this long until the batches before it are published. If they
 * are not, the changes of the drain are published from the log later.
 */
const publishPatienceMs = 200;
/** a listener is degraded when Postgres has been silent for this much longer than the lease */
const contactGraceMs = 1_000;
/**
 * when a lead ends, the listener waits at most this long for its chores; on a silent connection they may
 * take minutes
 */
const endingMs = 2_000;

export class Listener implements Service {
  readonly #config: ListenerConfig;
  readonly #publisher: Publisher;
  readonly #log: Log;
  readonly #metrics: ListenerMetrics;
  readonly #pool: Pool;
  /**
   * for repeated short queries. The server cancels a query before this process gives it up; otherwise
   * sessions would pile up on a slow server.
   */
  readonly #watchPool: Pool;
  readonly #roster: Roster;
  readonly #abort = new AbortController();
  readonly #firstContact = Promise.withResolvers<void>();
  /** names this process in plank.leader; a restarted process gets another name */
  readonly #holder: string;
  #running: Promise<void> | undefined;
  readonly #drainDeadline = new DrainDeadline();
  #term = 0;
  #headSeq = 0;
  #epoch = 0;
  /** when Postgres last answered about the lead that this listener has or tries to take, as performance.now() */
  #contactAt = 0;
  #state: 'starting' | 'standby' | 'leading' | 'disconnected' | 'stopped' = 'starting';

  constructor(options: {
    config: ListenerConfig;
    publisher: Publisher;
    bus?: Bus;
    log: Log;
    metrics: ListenerMetrics;
  }) {
    this.#config = options.config;
    this.#publisher = options.publisher;
    this.#log = options.log;
    this.#metrics = options.metrics;
    this.#holder = `${options.config.NODE_NAME}/${process.pid}/${Date.now().toString(36)}`;
    this.#pool = createPool(options.config.DATABASE_URL, {
      applicationName: 'plank listener (log)',
      statementTimeoutMs: 120_000,
      max: 3,
      idleTimeoutMs: 2_000,
      onError: (error) => this.#log.debug({ err: error }, 'an idle connection failed'),
    });
    this.#watchPool = createPool(options.config.DATABASE_URL, {
      applicationName: 'plank listener (watch)',
      statementTimeoutMs: 2_000,
      max: 3,
      idleTimeoutMs: 2_000,
      onError: (error) => this.#log.debug({ err: error }, 'an idle connection failed'),
    });
    this.#roster = new Roster({
      bus: options.bus ?? new LocalBus(),
      node: options.config.NODE_NAME,
      role: 'listener',
      version,
      state: () => this.#status(),
      log: this.#log,
    });
  }

  #status(): ListenerState {
    const leads = this.#state === 'leading';
    return {
      state: this.#state,
      term: leads ? this.#term : null,
      headSeq: leads ? this.#headSeq : null,
      epoch: leads ? this.#epoch : null,
      owedMs: leads ? Math.max(0, Math.round(this.#silentMs - this.#config.LEASE_MS / 3)) : null,
      canaryEveryMs: leads ? this.#config.CANARY_INTERVAL_MS : null,
    };
  }

  get #silentMs(): number {
    return performance.now() - this.#contactAt;
  }

  /**
   * The content of /health. `ready`: the listener leads or stands by, and Postgres has answered it about
   * the lead within the lease and 1 s more. `silent_ms`: the time since Postgres last answered about the
   * lead. If it is longer than the lease, another listener may lead.
   */
  health(): { ready: boolean; node: string; state: string; silent_ms: number; reason?: string } {
    const state = this.#state;
    const silentMs = Math.round(this.#silentMs);
    const status = { node: this.#config.NODE_NAME, state, silent_ms: silentMs };
    if (state !== 'leading' && state !== 'standby')
      return { ready: false, ...status, reason: 'it has no session in Postgres' };
    if (silentMs <= this.#config.LEASE_MS + contactGraceMs) return { ready: true, ...status };
    return { ready: false, ...status, reason: `Postgres has not answered it for ${Math.round(silentMs / 1_000)} s` };
  }

  /** Resolves when this listener leads or is a standby. */
  readonly start = once(async () => {
    this.#running = this.#run();
    await Promise.race([this.#firstContact.promise, this.#running]);
    this.#roster.start();
  });

  readonly stop = once(async () => {
    this.#abort.abort();
    await this.#running;
    this.#state = 'stopped';
    await this.#roster.stop();
    await Promise.all([this.#pool.end(), this.#watchPool.end()]);
  });

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    const backoff = new Backoff(50, 1_500);
    while (!signal.aborted) {
      let sequencer: Sequencer | undefined;
      try {
        sequencer = await Sequencer.connect(this.#config.DATABASE_URL, this.#config.LEASE_MS, this.#drainDeadline.ms);
        await this.#contend(sequencer);
        backoff.reset();
      } catch (error) {
        if (error instanceof Deposed) this.#log.warn({ reason: error.message }, 'the lead is over, standing by');
        else if (!signal.aborted) {
          this.#state = 'disconnected';
          this.#log.warn({ err: error }, 'lost the database, trying again');
        }
      }
      await sequencer?.stop();
      if (!signal.aborted) await sleep(backoff.next(), signal);
    }
  }

  async #contend(sequencer: Sequencer): Promise<void> {
    const { signal } = this.#abort;
    const interrupted = AbortSignal.any([signal, sequencer.lost]);
    while (!signal.aborted) {
      const lead = await sequencer.lead(this.#holder);
      this.#contactAt = performance.now();
      if (lead) {
        await this.#runLead(sequencer, lead);
        return;
      }
      if (this.#state !== 'standby') this.#log.info('standing by');
      this.#state = 'standby';
      this.#firstContact.resolve();
      await sleep(this.#config.LEASE_MS / 6, interrupted);
      sequencer.lost.throwIfAborted();
    }
  }

  async #runLead(sequencer: Sequencer, lead: Lead): Promise<void> {
    const log = this.#log.child({ term: lead.term });
    const metrics = this.#metrics;
    const over = new AbortController();
    const signal = AbortSignal.any([this.#abort.signal, sequencer.lost, over.signal]);
    const doorbell = new Doorbell({
      databaseUrl: this.#config.DATABASE_URL,
      wake: this.#config.WAKE,
      pollIntervalMs: this.#config.POLL_INTERVAL_MS,
      safetyIntervalMs: this.#config.SAFETY_INTERVAL_MS,
      log,
      metrics,
    });
    const publishing = new Publishing({
      publisher: this.#publisher,
      reader: new LogReader(this.#pool),
      lead,
      beginEpoch: (above, at) => sequencer.beginEpoch(lead.term, above, at),
      log,
      metrics,
    });
    const lease = this.#keepLease(sequencer, lead.term, signal).catch((error: Error) => over.abort(error));
    const retention = keepRetention({
      pool: this.#watchPool,
      term: lead.term,
      config: this.#config,
      log,
      metrics,
      signal,
    });
    const inspection = inspectCapture({ pool: this.#pool, log, metrics, signal });
    const gauges = keepGauges({ pool: this.#watchPool, publisher: this.#publisher, publishing, log, metrics, signal });
    const everyMs = this.#config.CANARY_INTERVAL_MS;
    const canaries = sendCanaries({ pool: this.#watchPool, everyMs, log, metrics, signal });
    // publications run one at a time, in order. A publication rejects only if this listener is deposed.
    let published: Promise<void> = Promise.resolve();
    const enqueue = (work: () => Promise<void>) => {
      published = published.then(work).catch((error: Error) => over.abort(error));
    };

    this.#state = 'leading';
    this.#term = lead.term;
    this.#epoch = lead.epoch;
    metrics.leader.set(1);
    metrics.term.set(lead.term);
    this.#recordHead(lead.headSeq);
    metrics.heartbeat.setToCurrentTime();
    log.info({ epoch: lead.epoch, headSeq: lead.headSeq }, 'leading');
    doorbell.start();
    this.#firstContact.resolve();
    enqueue(() => publishing.catchUp());
    const retries = (async () => {
      for (;;) {
        await sleep(publishRetryMs, signal);
        if (signal.aborted) return;
        await published;
        if (publishing.behind && !signal.aborted) enqueue(() => publishing.catchUp());
      }
    })();
    try {
      for (;;) {
        const wake = await doorbell.wait(signal);
        if (signal.aborted) break;
        const started = performance.now();
        const drained = await sequencer.drain(lead.term, this.#drainDeadline.ms).catch((error: Error) => {
          this.#drainDeadline.failed(performance.now() - started);
          throw error;
        });
        this.#drainDeadline.succeeded();
        const ms = performance.now() - started;
        const drainedAtMs = Date.now();
        this.#observe(drained, wake, ms);
        const transactions = drained.kind === 'changes' ? drained.transactions : drained.kind === 'backlog' ? 1 : 0;
        doorbell.drained(transactions, ms);
        if (drained.kind === 'nothing') continue;
        // drains do not wait for a slow fan-out: gateways that get nothing new from the fan-out read the
        // log
        if (!(await settlesWithin(published, publishPatienceMs))) publishing.leaveToCatchUp(drained.lastSeq);
        else if (drained.kind === 'changes') enqueue(() => publishing.publish(drained, drainedAtMs));
        else enqueue(() => publishing.catchUp(drained.lastSeq));
      }
      if (!this.#abort.signal.aborted) throw signal.reason;
      // the next leader publishes from the log the changes that are not published after this wait
      await settlesWithin(published, endingMs);
      await sequencer.resign(lead.term).catch((error: Error) => log.debug({ err: error }, 'could not resign'));
    } finally {
      over.abort();
      this.#state = 'disconnected';
      metrics.leader.set(0);
      metrics.ringing.set(0);
      metrics.heartbeat.remove();
      // chores that take longer than `endingMs` are harmless, because the term is over
      const chores = [lease, retention, inspection, gauges, canaries, retries, published];
      await settlesWithin(Promise.all([doorbell.stop(), ...chores]), endingMs);
    }
  }

  async #keepLease(sequencer: Sequencer, term: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(this.#config.LEASE_MS / 3, signal);
      if (signal.aborted) return;
      await sequencer.renew(term);
      this.#contactAt = performance.now();
      this.#metrics.heartbeat.setToCurrentTime();
    }
  }

  #observe(drained: Drained, wake: Wake, ms: number): void {
    const metrics = this.#metrics;
    this.#contactAt = performance.now();
    metrics.drainSeconds.observe(ms / 1_000);
    metrics.heartbeat.setToCurrentTime();
    if (drained.kind === 'nothing') return;
    if (wake === 'safety') metrics.safetyFinds.inc();
    const count = drained.lastSeq - this.#headSeq;
    this.#recordHead(drained.lastSeq);
    metrics.drained.inc(count);
    metrics.drainEvents.observe(count);
    if (drained.kind === 'backlog') return;
    metrics.captureToDrain.observe(Math.max(0, Date.now() - drained.firstAtMs) / 1_000);
  }

  #recordHead(seq: number): void {
    this.#headSeq = seq;
    this.#metrics.headSeq.set(seq);
  }
}
