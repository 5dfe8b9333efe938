/** The time limits of the state machine. */

export const limits = {
  /** a token is renewed after this part of its lifetime, but not before `renewMinMs` */
  renew: 0.8,
  renewMinMs: 1_000,
  /** if the renewal brought no other token, the next attempt follows after this time */
  renewRetryMs: 5_000,
  /** after so many attempts in a row whose token was refused at the hello, the SDK gives up */
  tokenAttempts: 2,
  /** if no `welcome` came so long after the request for the token, the attempt is given up */
  connectMs: 10_000,
  /** the shortest and the longest wait before another attempt */
  minWaitMs: 500,
  maxWaitMs: 20_000,
  /** after a connection that was open for so long, the waits start again from the shortest one */
  stableMs: 30_000,
  /** after `ping_ms` times this without a frame, the connection is given up */
  silence: 2.5,
  /** after `pos_ms` times this without a change or a position, subscriptions are stale */
  stale: 1.6,
  /**
   * if a timer fires later than this after its time, the timer and the frames that it waits for were held up
   * together: the page was hidden, or the machine slept
   */
  heldUpMs: 1_000,
  /** how long a ping waits for an answer if there is a reason to doubt the connection */
  probeMs: 5_000,
  /**
   * how long a `drain` counts after the time that it announced. If the connection is still open after that, the
   * drain was cancelled. A later close has another cause and may hit all clients that got the `drain`. So these
   * clients then reconnect with jitter and not at the announced time.
   */
  drainMs: 5_000,
  /**
   * how long a request waits for its answer, or for other content that the server sends before it; the option
   * `answerTimeoutMs` changes this
   */
  answerMs: 30_000,
};
