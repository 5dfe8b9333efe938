/**
 * The only module that handles signals and exits. A process starts its parts in order, runs until SIGTERM or SIGINT,
 * and stops the parts in reverse order within a deadline. A second signal ends the process at once.
 */
import { misspelt } from './config.ts';
import { loggedError } from './log-error.ts';

/** Under npm, one Ctrl-C sends two signals: one from the terminal and one from npm. */
const sameSignalMs = 500;

export interface Service {
  /** Resolves when the service is ready. */
  start(): Promise<void>;
  /** May be called several times, and during start. */
  stop(): Promise<void>;
}

/**
 * Runs one process. `main` starts the parts, and puts the stop of each part on the stack. Then `runService` waits for a
 * signal and disposes the stack. If reading the configuration fails, or starting fails, the process prints the reason
 * in one line and exits with status 1.
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
  // a closed or full pipe on stdout or stderr must not end the process
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // Node would print the whole error, and the error may contain values of a row.
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
