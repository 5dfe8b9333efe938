/**
 * Translates errors of Postgres into errors that a client may see: errors that the client caused, and
 * temporary ones. The texts never contain values that the client did not send. So Postgres' `detail`
 * ("Failing row contains (…)") and the text of most 23xxx errors are left out.
 */
import { DatabaseError, isUnavailable } from '#shared/postgres/postgres.ts';
import type { Table } from '../catalog/catalog.ts';
import { type ErrorCode, invalidFields, PlankError } from './errors.ts';

/** The statement that failed, so that the error can name the field. */
export interface StatementContext {
  table: Table;
  /** the column of each parameter: $1 is parameters[0] */
  parameters: readonly string[];
  deletes?: boolean;
  /**
   * the statement only reads: if Postgres refuses a value, the value is stored data, and not a value that
   * the client sent
   */
  reads?: boolean;
}

/**
 * Translates an error of a statement into a PlankError. Returns an error unchanged if it is neither the
 * client's fault nor temporary.
 */
export function fromPostgres(
  error: unknown,
  { table, parameters, deletes = false, reads = false }: StatementContext,
): unknown {
  if (!(error instanceof DatabaseError)) return isUnavailable(error) ? unavailable(error) : error;
  const code = error.code ?? '';
  // a trigger refused the row with RAISE. RAISE may set any code, so this comes before the codes below.
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
      // Postgres does not report the column of a check constraint. But if Postgres itself chose the
      // constraint's name, and the constraint is about one column, the name contains the name of the
      // column.
      const column = table.columns.find(({ name }) => constraint === `${table.table}_${name}_check`)?.name;
      if (column !== undefined)
        return invalidFields([{ path: column, message: `violates the check constraint ${constraint}` }], error);
      return new PlankError('INVALID', `The row violates the check constraint ${constraint}`, { cause: error });
    }
    case '23502': {
      const column = shown(error.column);
      if (column !== undefined) return invalidFields([{ path: column, message: 'must not be null' }], error);
      return new PlankError('INVALID', 'A column that Plank does not serve must not be null', { cause: error });
    }
    case '42501':
      return new PlankError('FORBIDDEN', 'The database does not allow this to the role of the gateway', {
        cause: error,
      });
    case '3F000':
    case '42P01':
    case '42703':
      return new PlankError('UNAVAILABLE', 'The columns of the table have just changed: try again', { cause: error });
    case '40001':
    case '40P01':
    case '55P03':
      return new PlankError('UNAVAILABLE', 'Another transaction was in the way: try again', { cause: error });
    case '25006':
      return new PlankError('UNAVAILABLE', 'The database is read-only now: try again', { cause: error });
    case '428C9': // a column became GENERATED ALWAYS a moment ago
    case '44000':
      return new PlankError('INVALID', error.message, { cause: error });
    case '0A000': // such as a type without text input
    case '42P17': // such as rules that recurse for ever
    case '27000': // a BEFORE trigger changed the row itself
    case '55000': // such as a publication that requires a replica identity
    case '55006':
      return new PlankError('REFUSED', error.message, { cause: error });
    case '57014':
      return unavailable(error);
  }
  const number = /portal parameter \$(\d+)/.exec(error.where ?? '')?.[1];
  const column = number === undefined ? undefined : shown(parameters[Number(number) - 1]);
  // if a type of an extension cannot read a text, it reports this in one of many ways, for example as a
  // syntax error or an internal error
  const sent = table.columns.filter(({ name, structured }) => structured && parameters.includes(name));
  const isOfText =
    column !== undefined || (sent.length > 0 && (code === 'XX000' || (code === '42601' && !error.position)));
  if (isOfText || /^(22|23|54)/.test(code)) {
    if (column !== undefined) return invalidFields([{ path: column, message: `is refused: ${error.message}` }], error);
    if (reads)
      return new PlankError('REFUSED', `The database cannot render a value of the row as JSON: ${error.message}`, {
        cause: error,
      });
    const detail = code === '22003' && error.detail !== undefined ? `. ${error.detail}` : '';
    return new PlankError('INVALID', `${error.message}${detail}`, { cause: error });
  }
  return isUnavailable(error) ? unavailable(error) : error;
}

/** An error by RAISE of PL/pgSQL: its message is meant for the client, and its code decides the status. */
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
