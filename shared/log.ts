/** The logger. Constant messages, data in fields; never a row's content, a token or a password. */
import { type DestinationStream, type LoggerOptions, pino } from 'pino';
import { loggedError } from './log-error.ts';

export type Log = pino.Logger;

/** To the standard output, unless there is another destination. */
export function createLog(level: string, service: string, node: string, destination?: DestinationStream): Log {
  const options: LoggerOptions = {
    level,
    base: { service, node },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: loggedError },
  };
  return destination ? pino(options, destination) : pino(options);
}
