/**
 * Everything that goes wrong in a REST request, as application/problem+json. What a client may see is a PlankError; the
 * body parser's and Postgres' errors are translated here, and anything else is INTERNAL: logged once, without bodies,
 * parameters or what Postgres says of row contents.
 */
import type { ErrorRequestHandler, Request, RequestHandler, Response } from 'express';
import type { z } from 'zod';
import { DatabaseError, isUnavailable } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { Table } from '../catalog/catalog.ts';
import { catalogue, type ErrorCode, type FieldError, PlankError } from './errors.ts';

const maxFields = 20; // a body can have more wrong fields than anyone wants to read
const maxNameLength = 100;

const shorten = (name: string): string => (name.length > maxNameLength ? `${name.slice(0, maxNameLength)}…` : name);

/** INVALID with the fields named in the text as well. */
export function invalidFields(fields: readonly FieldError[], cause?: unknown): PlankError {
  const shown = fields.slice(0, maxFields).map(({ path, message }) => ({ path: shorten(path), message }));
  const sentences = shown.map(({ path, message }) => (path === '' ? message : `${path} ${message}`));
  const rest = fields.length > shown.length ? [`and ${fields.length - shown.length} more`] : [];
  return new PlankError('INVALID', [...sentences, ...rest].join('; '), { fields: shown, cause });
}

/** `unknown` says what an unknown key is: "is not a column of items". */
export function invalid(error: z.ZodError, unknown: string): PlankError {
  const fields = error.issues.flatMap((issue): FieldError[] => {
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => ({ path: key, message: unknown }));
    return [{ path: issue.path.join('.'), message: issue.message }];
  });
  return invalidFields(fields, error);
}

/** What the statement was about, so that an error can name the field. */
export interface StatementContext {
  table: Table;
  /** the column of each parameter: $1 is parameters[0] */
  parameters: readonly string[];
  deletes: boolean;
  /** it reads and writes nothing: what Postgres says of a value is not about one that was sent */
  reads?: boolean;
}

/**
 * Errors of Postgres that are the client's doing, or that pass. Others come back as they are.
 * Neither `detail` nor the text of 23xxx is shown where it may hold other columns of the row ("Failing row contains (…)").
 */
export function fromPostgres(error: unknown, { table, parameters, deletes, reads = false }: StatementContext): unknown {
  if (!(error instanceof DatabaseError)) return isUnavailable(error) ? unavailable(error) : error;
  const code = error.code ?? '';
  // a trigger that says no, with whatever code it likes
  if (error.routine === 'exec_stmt_raise' || code === 'P0001') return raised(error, reads);
  const constraint = error.constraint ?? 'of the table';
  const shown = (name: string | undefined) => table.columns.find((column) => column.name === name)?.name;
  switch (code) {
    case '23505':
      return new PlankError('CONFLICT', `A row with the same values exists already (constraint ${constraint})`, {
        cause: error,
      });
    case '23P01':
      return new PlankError('CONFLICT', `The row overlaps with another (constraint ${constraint})`, { cause: error });
    case '23001':
    case '23503':
      return deletes || error.table !== table.table
        ? new PlankError('CONFLICT', `Other rows still refer to this one (constraint ${constraint})`, { cause: error })
        : new PlankError('INVALID', `The row refers to one that does not exist (constraint ${constraint})`, {
            cause: error,
          });
    case '23514': {
      // Postgres names no column, but the name that it gives to a constraint of one column does
      const column = table.columns.find(({ name }) => constraint === `${table.table}_${name}_check`)?.name;
      if (column !== undefined)
        return invalidFields([{ path: column, message: `violates the check constraint ${constraint}` }], error);
      return new PlankError('INVALID', `The row violates the check constraint ${constraint}`, { cause: error });
    }
    case '23502': {
      const column = shown(error.column);
      if (column !== undefined) return invalidFields([{ path: column, message: 'must not be null' }], error);
      return new PlankError('INVALID', 'A column that is not shown here must not be null', { cause: error });
    }
    case '42501':
      return new PlankError('FORBIDDEN', 'The database does not allow this', { cause: error });
    case '3F000':
    case '42P01':
    case '42703':
      return new PlankError('UNAVAILABLE', 'The table has just changed its shape: try again', { cause: error });
    case '40001':
    case '40P01':
    case '55P03':
      return new PlankError('UNAVAILABLE', 'Another transaction was in the way: try again', { cause: error });
    case '25006':
      return new PlankError('UNAVAILABLE', 'The database takes no writes now: try again', { cause: error });
    case '428C9': // a column that is generated always, since just now
    case '44000':
      return new PlankError('INVALID', error.message, { cause: error });
    case '0A000': // such as a type that takes no text
    case '42P17': // such as rules without end
    case '27000': // a trigger has changed the row in between
    case '55000': // such as a publication that needs a replica identity
    case '55006':
      return new PlankError('REFUSED', error.message, { cause: error });
    case '57014':
      return unavailable(error);
  }
  const number = /portal parameter \$(\d+)/.exec(error.where ?? '')?.[1];
  const column = number === undefined ? undefined : shown(parameters[Number(number) - 1]);
  // the types of extensions say in many ways that a text is none of theirs: as if it were SQL, or as a fault inside
  const sent = table.columns.filter(({ name, structured }) => structured && parameters.includes(name));
  const isOfText =
    column !== undefined || (sent.length > 0 && (code === 'XX000' || (code === '42601' && !error.position)));
  if (isOfText || /^(22|23|54)/.test(code)) {
    if (column !== undefined) return invalidFields([{ path: column, message: `is refused: ${error.message}` }], error);
    if (reads)
      return new PlankError('REFUSED', `The database cannot say a value here as JSON: ${error.message}`, {
        cause: error,
      });
    const detail = code === '22003' && error.detail !== undefined ? `. ${error.detail}` : '';
    return new PlankError('INVALID', `${error.message}${detail}`, { cause: error });
  }
  return isUnavailable(error) ? unavailable(error) : error;
}

/** RAISE of PL/pgSQL: the words are for the client, and the code says what kind of answer it is. */
function raised(error: DatabaseError, reads: boolean): PlankError {
  const codes: Record<string, ErrorCode> = {
    '23505': 'CONFLICT',
    '23P01': 'CONFLICT',
    '40001': 'UNAVAILABLE',
    '40P01': 'UNAVAILABLE',
    '42501': 'FORBIDDEN',
    '55P03': 'UNAVAILABLE',
  };
  return new PlankError(codes[error.code ?? ''] ?? (reads ? 'REFUSED' : 'INVALID'), error.message, { cause: error });
}

function unavailable(cause: unknown): PlankError {
  return new PlankError('UNAVAILABLE', 'The database does not answer now: try again', { cause });
}

interface HttpError extends Error {
  status: number;
  type?: string;
  limit?: number;
}

/** Errors of express and its body parser carry a status; its texts are about the client's own bytes. */
function fromExpress(error: HttpError): PlankError {
  if (error.type === 'entity.too.large')
    return new PlankError('TOO_LARGE', `The body is larger than ${error.limit} bytes`, { cause: error });
  if (error.status === 415) return new PlankError('UNSUPPORTED_MEDIA_TYPE', error.message, { cause: error });
  if (error.type === 'entity.parse.failed' && error instanceof RangeError)
    return new PlankError('MALFORMED', 'The body is nested too deeply', { cause: error });
  if (error.type === 'entity.parse.failed')
    return new PlankError('MALFORMED', `The body is not JSON: ${error.message}`, { cause: error });
  return new PlankError('MALFORMED', error.message, { cause: error });
}

function toPlankError(error: unknown): PlankError | undefined {
  if (error instanceof PlankError) return error;
  const status = error instanceof Error ? (error as Partial<HttpError>).status : undefined;
  if (status !== undefined && status >= 400 && status < 500) return fromExpress(error as HttpError);
  return undefined;
}

function sendProblem(response: Response, error: PlankError): void {
  const { status, title, retry } = catalogue[error.code];
  if (retry) response.set('Retry-After', '1');
  response
    .status(status)
    .set('Cache-Control', 'no-store')
    .type('application/problem+json')
    .send(
      JSON.stringify({
        type: `urn:plank:${error.code.toLowerCase().replaceAll('_', '-')}` satisfies string,
        title,
        status,
        code: error.code satisfies ErrorCode,
        detail: error.message,
        ...(error.fields.length > 0 ? { errors: error.fields } : {}),
      }),
    );
}

/** The last handler of the app. */
export function problemHandler(log: Log): ErrorRequestHandler {
  return (error: unknown, request, response, _next) => {
    const known = toPlankError(error);
    if (known === undefined) {
      const { method } = request;
      log.error({ err: error, method, route: routeOf(response) }, 'a request failed');
    }
    // half an answer cannot be taken back: the client must see that it is broken
    if (response.headersSent) response.destroy();
    else
      sendProblem(response, known ?? new PlankError('INTERNAL', 'The request failed; it is in the log of this node'));
  };
}

/** The pattern of a request's route, for logs and metrics: a path would make a label of every id. */
export function routeOf(response: Response): string {
  const route: unknown = response.locals['route'];
  return typeof route === 'string' ? route : 'unknown';
}

/** The first handler of every route. */
export function named(route: string): RequestHandler {
  return (_request, response, next) => {
    response.locals['route'] = route;
    next();
  };
}

export const notFound: RequestHandler = (request: Request) => {
  throw new PlankError('NOT_FOUND', `There is no ${shorten(request.path)} here`);
};

/** For what is served to WebSockets only. */
export const upgradeRequired: RequestHandler = (_request, response) => {
  response.set({ Upgrade: 'websocket', Connection: 'Upgrade' });
  throw new PlankError('UPGRADE_REQUIRED', 'This address is for WebSockets: connect with a WebSocket client');
};

/** The last handler of a route. */
export function methodNotAllowed(allow: string): RequestHandler {
  return (request, response) => {
    response.set('Allow', allow);
    throw new PlankError('METHOD_NOT_ALLOWED', `${request.method} is not one of ${allow}`);
  };
}
