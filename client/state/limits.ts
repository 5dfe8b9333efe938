/** The time limits of the state machine. */

export const limits = {
  /** from asking for the token to `welcome`; then the attempt is given up */
  connectMs: 10_000,
  /** the shortest and the longest wait before another attempt */
  minWaitMs: 500,
  maxWaitMs: 20_000,
  /** after a connection that was open for so long, the waits start from the shortest again */
  stableMs: 30_000,
  /** a server is given up after `ping_ms` times this without a frame */
  silence: 2.5,
  /** a subscription is stale after `pos_ms` times this without a change or a position */
  stale: 1.6,
  /**
   * a timer that fires later than this was held up together with what it waits for: a hidden page,
   * a machine that slept
   */
  heldUpMs: 1_000,
  /** how long a ping waits for an answer where there is a reason for doubt */
  probeMs: 5_000,
  /**
   * how long a `drain` counts after the moment that it announced. A connection that is still open
   * then was spared: the drain was cancelled. If it closes later, so do those of all clients that
   * got the `drain`, so they come back with jitter and not at once.
   */
  drainMs: 5_000,
  /**
   * how long a request waits for its answer, and for what the server sends before that;
   * `answerTimeoutMs` changes it
   */
  answerMs: 30_000,
};
