/**
 * The only place that touches signals and exit. A process acquires its parts in order, runs until SIGTERM or SIGINT, and
 * releases them in reverse within a deadline; a second signal ends it at once.
 */
import type { Log } from './log.ts';

export interface Service {
  /** Resolves when ready. */
  start(): Promise<void>;
  /** Idempotent; safe during start. */
  stop(): Promise<void>;
}

/** Makes a start or stop run once however often it is called. */
export function once<T>(work: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => (result ??= work());
}

/**
 * Runs `main` with a stack that it puts its parts on, then waits for a signal and disposes of them.
 * A failure of `main` ends the process with status 1 and one line that says why.
 */
export async function run(
  log: Log,
  stopTimeoutMs: number,
  main: (stack: AsyncDisposableStack) => Promise<void>,
): Promise<void> {
  const stack = new AsyncDisposableStack();
  const { promise: signalled, resolve: onSignal } = Promise.withResolvers<string>();
  let stopping = false;
  const handle = (signal: NodeJS.Signals) => {
    if (stopping) process.exit(130);
    stopping = true;
    onSignal(signal);
  };
  process.on('SIGTERM', handle);
  process.on('SIGINT', handle);
  try {
    await Promise.race([main(stack), signalled]);
    const signal = await signalled;
    log.info({ signal }, 'stopping');
  } catch (error) {
    log.fatal({ err: error }, `could not start: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
  const hardStop = setTimeout(() => {
    log.error('did not stop in time');
    process.exit(1);
  }, stopTimeoutMs);
  hardStop.unref();
  try {
    await stack.disposeAsync();
  } catch (error) {
    log.error({ err: error }, 'could not stop cleanly');
    process.exitCode = 1;
  }
  clearTimeout(hardStop);
  process.exit();
}
