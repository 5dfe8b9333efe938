/**
 * The logger. Messages are constant, and data is in fields. No line contains the content of a row, a token or a
 * password. If a line cannot be written (a full disk, a pipe that nobody reads), the line is dropped. Then the process
 * does not end, and no lines pile up in memory.
 */
import { writeSync } from 'node:fs';
import { type DestinationStream, type LoggerOptions, pino } from 'pino';
import { loggedError } from './log-error.ts';

export type Log = pino.Logger;

/** Writes to stdout unless `destination` is given. */
export function createLog(level: string, service: string, node: string, destination?: DestinationStream): Log {
  const options: LoggerOptions = {
    level,
    base: { service, node },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: loggedError },
  };
  return pino(options, destination ?? new Output(1));
}

/**
 * How long to wait if a pipe is full. The wait blocks the whole process. So after one wait, lines are dropped without
 * another wait until a line could be written again.
 */
const fullPipeMs = 20;

/**
 * Writes to a file descriptor. pino's own stream, if it cannot write, ends the process or keeps all lines in memory.
 */
class Output implements DestinationStream {
  readonly #fd: number;
  #lost = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(line: string): void {
    try {
      if (this.#lost > 0) {
        this.#put(
          `${JSON.stringify({ level: 'warn', time: new Date(), lines: this.#lost, msg: 'log lines were lost' })}\n`,
        );
        this.#lost = 0;
      }
      this.#put(line);
    } catch {
      this.#lost++;
    }
  }

  #put(line: string): void {
    const bytes = Buffer.from(line);
    let mayWait = this.#lost === 0;
    for (let at = 0; at < bytes.length; ) {
      try {
        at += writeSync(this.#fd, bytes, at);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || !mayWait) throw error;
        mayWait = false;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, fullPipeMs);
      }
    }
  }
}
