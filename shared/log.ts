/** The logger. Constant messages, data in fields; never a row's content, a token or a password. */
import { pino } from 'pino';

export type Log = pino.Logger;

export function createLog(level: string, service: string, node: string): Log {
  return pino({
    level,
    base: { service, node },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: pino.stdSerializers.errWithCause },
  });
}
