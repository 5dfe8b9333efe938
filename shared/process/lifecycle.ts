/**
 * The only place that touches signals and exit. A process acquires its parts in order, runs until SIGTERM or SIGINT, and
 * releases them in reverse within a deadline; a second signal ends it at once.
 */
import { misspelt } from './config.ts';
import { loggedError } from './log-error.ts';

/** Below npm, one Ctrl-C arrives twice: from the terminal, and passed on by npm. */
const sameSignalMs = 500;

export interface Service {
  /** Resolves when ready. */
  start(): Promise<void>;
  /** Idempotent; safe during start. */
  stop(): Promise<void>;
}

/**
 * Runs one process. `main` starts its parts and defers their ends on the stack; then this waits for a signal and disposes
 * of them. A failure to read the configuration or to start ends the process with status 1 and one line that says why.
 */
export async function runService<C extends { STOP_TIMEOUT_MS: number }>(
  name: string,
  configure: () => C,
  main: (config: C, stack: AsyncDisposableStack) => Promise<void>,
): Promise<never> {
  const stack = new AsyncDisposableStack();
  const signalled = Promise.withResolvers<void>();
  let stoppingSince: number | undefined;
  const onSignal = () => {
    if (stoppingSince !== undefined && performance.now() - stoppingSince > sameSignalMs) process.exit(130);
    stoppingSince ??= performance.now();
    signalled.resolve();
  };
  // who reads what is written may go, or have no room for it: no reason to end
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // Node would print all that the error holds, which may be a row's content
  process.on('uncaughtException', (error) => {
    process.stderr.write(`plank ${name}: ${JSON.stringify(loggedError(error))}\n`);
    process.exit(1);
  });
  let status = 0;
  let stopTimeoutMs = 10_000;
  try {
    const config = configure();
    for (const line of misspelt()) process.stderr.write(`plank ${name}: ${line}\n`);
    stopTimeoutMs = config.STOP_TIMEOUT_MS;
    const started = main(config, stack);
    await Promise.race([started, signalled.promise]);
    await signalled.promise;
    started.catch(() => {});
  } catch (error) {
    status = 1;
    process.stderr.write(`plank ${name}: ${error instanceof Error ? error.message : String(error)}\n`);
  }
  setTimeout(() => {
    process.stderr.write(`plank ${name}: did not stop within ${stopTimeoutMs} ms\n`);
    process.exit(1);
  }, stopTimeoutMs);
  await stack.disposeAsync().catch((error: unknown) => {
    process.stderr.write(`plank ${name}: could not stop cleanly: ${String(error)}\n`);
    status = 1;
  });
  process.exit(status);
}
