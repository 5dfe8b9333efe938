/**
 * Explains in one line why a database cannot be used, and what to do. Of the URL, the line shows only host, port, user
 * and database.
 */

import { UnreadableMessage } from './whole-messages.ts';

interface Place {
  at: string;
  user: string;
  database: string;
}

/** Explains an error of Postgres, pg or the network that came at connecting or in the first statement. */
export function databaseProblem(error: unknown, databaseUrl: string): Error {
  if (error instanceof DatabaseUnusable) return error;
  return new DatabaseUnusable(explain(error, placeOf(databaseUrl)), { cause: error });
}

class DatabaseUnusable extends Error {
  override readonly name = 'DatabaseUnusable';
}

/** A URL without its password, for printing. */
export function withoutPassword(url: string): string {
  if (!URL.canParse(url)) return url.replace(/^(\w+:\/\/[^:@/]*):[^@]*@/, '$1@');
  const shown = new URL(url);
  shown.password = '';
  shown.searchParams.delete('password');
  return shown.href;
}

function placeOf(databaseUrl: string): Place {
  const url = new URL(databaseUrl.replace(/^([^/]+\/\/[^/]*@)\//, '$1localhost/'));
  const host = url.searchParams.get('host') ?? decodeURIComponent(url.hostname);
  const port = url.searchParams.get('port') ?? (url.port || '5432');
  const user =
    decodeURIComponent(url.username) || url.searchParams.get('user') || process.env.PGUSER || process.env.USER || '';
  return {
    at: host.startsWith('/') ? host : `${host}:${port}`,
    user,
    database: decodeURIComponent(url.pathname.slice(1)) || user,
  };
}

function explain(error: unknown, { at, user, database }: Place): string {
  const { code = '', message = String(error) } = (error ?? {}) as { code?: string; message?: string };
  const line = message.split('\n')[0]!.trim();
  switch (code) {
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the host of the database cannot be resolved (${at}): correct DATABASE_URL`;
    case 'ECONNREFUSED':
    case 'ENOENT':
      return `no database answers at ${at}: start Postgres there, or correct DATABASE_URL`;
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'ETIMEDOUT':
      return `the database at ${at} cannot be reached: correct DATABASE_URL, or allow this machine in the firewall`;
    case '28P01':
      return `the database at ${at} refuses the password of "${user}": correct DATABASE_URL`;
    case '28000':
      return /no encryption|SSL off/.test(line)
        ? `the database at ${at} does not let "${user}" in without TLS: add ?sslmode=verify-full to DATABASE_URL, or allow this machine in pg_hba.conf (${line})`
        : `the database at ${at} does not let "${user}" in: correct DATABASE_URL, or pg_hba.conf (${line})`;
    case '3D000':
      return `there is no database "${database}" at ${at}: create it, or correct DATABASE_URL`;
    case '53300':
      return `the database at ${at} has no free connection: raise max_connections, or lower POOL_SIZE (${line})`;
    case '57P03':
      return `the database at ${at} is starting or stopping: try again (${line})`;
    case '25006':
      return `the database at ${at} is read-only: DATABASE_URL must name the primary, not a standby`;
    default:
  }
  if (/does not support SSL/.test(line))
    return `the database at ${at} does not support TLS: remove sslmode from DATABASE_URL`;
  if (/certificate|^CERT_|SELF_SIGNED/.test(`${line} ${code}`))
    return `the certificate of the database at ${at} is not trusted: set sslrootcert in DATABASE_URL to its authority (${line})`;
  if (/SASL|password must be a string/.test(line))
    return `the database at ${at} requires a password for "${user}": add it to DATABASE_URL (${line})`;
  // UnreadableMessage: a server that speaks another protocol sent bytes that look like the length of a huge message
  if (error instanceof UnreadableMessage || /terminated|ECONNRESET|EPIPE/.test(`${line} ${code}`))
    return `the server at ${at} ends the connection: is it a Postgres database? Correct DATABASE_URL`;
  if (/timeout/i.test(line))
    return `the server at ${at} does not answer in time: is it a Postgres database? Correct DATABASE_URL`;
  return `the database at ${at}: ${line}`;
}
