/** The time limits of the state machine. */

export const limits = {
  /** the SDK renews a token after this part of its lifetime, but not before `renewMinMs` */
  renew: 0.8,
  renewMinMs: 1_000,
  /** if a renewal brought no other token, the SDK tries again after this time */
  renewRetryMs: 5_000,
  /** the SDK gives up after so many attempts in a row, if the server refused the token of each attempt's hello */
  tokenAttempts: 2,
  /** the SDK gives an attempt up if no `welcome` has come in this time since it requested the token */
  connectMs: 10_000,
  /** the shortest and the longest wait before another attempt */
  minWaitMs: 500,
  maxWaitMs: 20_000,
  /** after a connection that was open for this long, the waits start again from the shortest one */
  stableMs: 30_000,
  /** if no frame comes for `ping_ms` times this factor, the SDK gives the connection up */
  silence: 2.5,
  /** if no change and no position come for `pos_ms` times this factor, subscriptions are stale */
  stale: 1.6,
  /**
   * if a timer fires later than its time by more than this, the page was hidden or the machine slept, and the frames
   * that the timer waits for may be late for the same reason
   */
  heldUpMs: 1_000,
  /** how long a ping waits for an answer if the SDK has a reason to doubt the connection */
  probeMs: 5_000,
  /**
   * how long a `drain` counts after the time that it announced. If the connection is still open after that, the server
   * has cancelled the drain. A later close has another cause and may hit all clients that got the `drain`. So these
   * clients then reconnect with jitter and not at the announced time.
   */
  drainMs: 5_000,
  /**
   * how long a request waits for its answer. The wait starts again after each frame but `pong` and `pos`. The option
   * `answerTimeoutMs` replaces this time.
   */
  answerMs: 30_000,
};
