/**
 * Decides which parts of an error are logged: its type, its origin and names of the schema, but never a value of a row.
 * Errors may contain values: Postgres puts values into message, detail, hint, where and query; JSON.parse quotes its
 * input; ioredis keeps the arguments of the command; zod keeps its input. So only listed fields are logged, and
 * messages only of kinds of errors that contain no values.
 */
import { DatabaseError } from 'pg';

const maxDepth = 5;
const maxErrors = 5;

/**
 * The classes of SQLSTATE whose messages concern connections, transactions, resources and identifiers. The other
 * classes may quote values: data errors (22, 23), errors that functions raise (P0, 38, 39, 44), and all classes that
 * are not listed.
 */
const aboutNames = /^(08|25|28|3D|3F|40|42|53|54|55|57|58)/;
/** the fields of Node's and Plank's errors that contain no values */
const plainFields = ['code', 'errno', 'syscall', 'address', 'port', 'status'];
const postgresFields = ['severity', 'code', 'routine', 'schema', 'table', 'column', 'dataType', 'constraint'];

export interface LoggedError {
  type: string;
  message?: string;
  stack?: string;
  cause?: LoggedError;
  errors?: LoggedError[];
  [field: string]: unknown;
}

export function loggedError(error: unknown, depth = 1): LoggedError {
  if (!(error instanceof Error)) return { type: typeof error };
  const logged: LoggedError = { type: error.name === 'Error' ? error.constructor.name : error.name };
  const fields = error as unknown as Readonly<Record<string, unknown>>;
  const take = (field: string) => {
    const value = fields[field];
    if (typeof value === 'string' || typeof value === 'number') logged[field] = value;
  };
  if (isDatabaseError(error)) {
    for (const field of postgresFields) take(field);
    // An error with a context (`where`) may come from a function, and a function can raise any text with any code.
    if (aboutNames.test(error.code ?? '') && error.where === undefined) logged.message = error.message;
    const within = /\b(?:function|procedure) ("?[\w$.]+"?)\(.*\) line (\d+)/.exec(error.where ?? '');
    if (within) logged['within'] = `${within[1]}, line ${within[2]}`;
  } else {
    for (const field of plainFields) take(field);
    if (!quotesItsInput(error)) logged.message = error.message;
  }
  const frames = error.stack?.split('\n').filter((line) => /^\s+at /.test(line));
  if (frames && frames.length > 0) logged.stack = frames.join('\n');
  if (depth === maxDepth) return logged;
  if (error.cause instanceof Error) logged.cause = loggedError(error.cause, depth + 1);
  if (error instanceof AggregateError)
    logged.errors = error.errors.slice(0, maxErrors).map((one) => loggedError(one, depth + 1));
  return logged;
}

/** Whether Postgres raised the error. Another copy of pg has another class, so the error's fields decide too. */
function isDatabaseError(error: Error): error is DatabaseError {
  return error instanceof DatabaseError || ('severity' in error && 'routine' in error);
}

function quotesItsInput(error: Error): boolean {
  return error instanceof SyntaxError || error.name === 'ZodError' || error.name === '$ZodError' || 'command' in error;
}
