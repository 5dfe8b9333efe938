/**
 * Reads and writes one row for REST, and explains why a write returned no row. A write is one statement
 * that includes its conditions. There is one exception: if a rule of the table rewrites the statement,
 * Postgres may not allow RETURNING. Then a transaction writes the row and reads it afterwards.
 */

import { type DatabaseError, isStatementError, quoted } from '#shared/postgres/postgres.ts';
import type { Table } from '../catalog/catalog.ts';
import { type FieldError, invalidFields, PlankError } from './errors.ts';
import { fromPostgres } from './postgres-problems.ts';
import { conditionSql, type Precondition, requireCondition } from './precondition.ts';
import type { RestQueries } from './rest-pool.ts';
import type { Values } from './row-values.ts';
import type { PageRow } from './table-page.ts';
import { changedValue, keyIs, newValue, Parameters, sameJson } from './value-sql.ts';

/** SQL fragments for the rows of a table, under the alias t. */
export function sqlOf(table: Table) {
  const key = table.keyColumns.map((name) => `t.${quoted(name)}`);
  const image = `(${table.imageSql})::pg_catalog.text as row`;
  return {
    relation: `${quoted(table.schema)}.${quoted(table.table)}`,
    keyList: key.join(', '),
    image,
    imageAndKey: `${image}, array[${key.map((column) => `${column}::pg_catalog.text`).join(', ')}] as key`,
  };
}

type Query = <R extends object>(text: string, parameters: Parameters, deletes?: boolean) => Promise<R[]>;
type Row = Pick<PageRow, 'row'>;

/** A statement that writes. `text` makes it with or without RETURNING. */
interface Write {
  text: (returning: boolean) => string;
  parameters: Parameters;
}

/** Reads and writes rows for one request. */
export class Rows {
  readonly #queries: RestQueries;

  constructor(queries: RestQueries) {
    this.#queries = queries;
  }

  /** Throws NOT_FOUND. */
  async read(table: Table, key: readonly string[]): Promise<string> {
    const [row] = await readRow(this.#query(table), table, key);
    if (row === undefined) throw gone();
    return row;
  }

  async create(table: Table, values: Values): Promise<PageRow> {
    const { relation, imageAndKey } = sqlOf(table);
    const parameters = new Parameters();
    const names = values.map(({ column }) => quoted(column.name)).join(', ');
    const given = values.map((value) => newValue(value, parameters)).join(', ');
    const rows = values.length === 0 ? 'default values' : `(${names}) values (${given})`;
    const text = (returning: boolean) =>
      `insert into ${relation} as t ${rows}${returning ? ` returning ${imageAndKey}` : ''}`;
    const [made] = await this.#write<PageRow>(table, { text, parameters }, async (query, run) => {
      const key = keyIn(table, values);
      if (!key)
        throw new PlankError(
          'REFUSED',
          'A rule of the table rewrites INSERT, so that Postgres cannot return the row: send its whole key',
        );
      await run();
      const [row] = await readRow(query, table, key);
      return row === undefined ? [] : [{ row, key }];
    });
    if (!made)
      throw new PlankError(
        'REFUSED',
        'The database did not insert the row: a trigger or a rule of the table prevents it',
      );
    return made;
  }

  /** Sets columns of one row; the columns in `reset` get their defaults. Resolves with the row's new image. */
  async update(
    table: Table,
    key: readonly string[],
    values: Values,
    reset: readonly string[],
    precondition: Precondition,
  ): Promise<string> {
    const { relation, image } = sqlOf(table);
    const parameters = new Parameters();
    const where = [keyIs(table, key, parameters), ...conditionSql(precondition, table.imageSql, parameters)];
    const readOnly = values.filter(({ column }) => !column.writable);
    where.push(...readOnly.map((value) => sameJson(table, value, parameters)));
    const changed = values.filter(({ column }) => column.writable);
    const sets = [
      ...changed.map((value) => `${quoted(value.column.name)} = ${changedValue(table, value, parameters)}`),
      ...reset.map((name) => `${quoted(name)} = default`),
    ];
    const text = (returning: boolean) =>
      sets.length === 0
        ? `select ${image} from ${relation} t where ${where.join(' and ')}`
        : `update ${relation} as t set ${sets.join(', ')} where ${where.join(' and ')}` +
          (returning ? ` returning ${image}` : '');
    const [row] = await this.#write<Row>(table, { text, parameters }, async (query, run) => {
      await this.#explain(query, table, key, precondition, readOnly);
      await run();
      const [now] = await readRow(query, table, keyIn(table, changed, key) ?? key);
      return now === undefined ? [] : [{ row: now }];
    });
    if (row) return row.row;
    await this.#explain(this.#query(table), table, key, precondition, readOnly);
    throw new PlankError(
      'REFUSED',
      'The database did not change the row: a trigger or a rule of the table prevents it',
    );
  }

  async remove(table: Table, key: readonly string[], precondition: Precondition): Promise<void> {
    const { relation } = sqlOf(table);
    const parameters = new Parameters();
    const where = [keyIs(table, key, parameters), ...conditionSql(precondition, table.imageSql, parameters)];
    const text = (returning: boolean) =>
      `delete from ${relation} t where ${where.join(' and ')}${returning ? ` returning '' as row` : ''}`;
    const write = { text, parameters, deletes: true };
    const rows = await this.#write<Row>(table, write, async (query, run) => {
      const before = await this.#explain(query, table, key, precondition, []);
      await run();
      // a rule may keep the row and only mark it as deleted
      const [after] = await readRow(query, table, key);
      return after === before ? [] : [{ row: '' }];
    });
    if (rows.length > 0) return;
    await this.#explain(this.#query(table), table, key, precondition, []);
    throw new PlankError(
      'REFUSED',
      'The database did not delete the row: a trigger or a rule of the table prevents it',
    );
  }

  /**
   * Throws the reason why the request cannot write this row. If there is no reason, resolves with the row's
   * image.
   */
  async #explain(
    query: Query,
    table: Table,
    key: readonly string[],
    precondition: Precondition,
    readOnly: Values,
  ): Promise<string> {
    const parameters = new Parameters();
    const where = keyIs(table, key, parameters);
    const { relation, image } = sqlOf(table);
    const same = readOnly.map((value) => sameJson(table, value, parameters));
    const [found] = await query<{ row: string; same: boolean[] }>(
      `select ${image}, array[${same.join(', ')}]::pg_catalog.bool[] as same from ${relation} t where ${where}`,
      parameters,
    );
    if (!found) throw gone();
    requireCondition(precondition, found.row);
    const fields = readOnly
      .filter((_, index) => !found.same[index])
      .map(({ column }): FieldError => ({ path: column.name, message: 'is read-only' }));
    if (fields.length > 0) throw invalidFields(fields);
    return found.row;
  }

  /**
   * Runs the statement with RETURNING. If a rule forbids this, calls `rewritten` in a transaction.
   * `rewritten` calls `run`, which runs the statement without RETURNING, and reads the row itself.
   */
  async #write<R extends object>(
    table: Table,
    { text, parameters, deletes = false }: Write & { deletes?: boolean },
    rewritten: (query: Query, run: () => Promise<unknown>) => Promise<R[]>,
  ): Promise<R[]> {
    try {
      return (await this.#queries.query<R>(table.name, text(true), parameters.values)).rows;
    } catch (error) {
      if (!isOfRule(error)) throw fromPostgres(error, { table, parameters: parameters.columns, deletes });
    }
    return this.#queries.use(table.name, async ({ client, giveUp, requireClient }) => {
      const query: Query = async <T extends object>(statement: string, { values, columns }: Parameters) => {
        requireClient();
        try {
          return (await client.query<T>(statement, values)).rows;
        } catch (error) {
          if (!isStatementError(error)) giveUp(error as Error);
          throw fromPostgres(error, { table, parameters: columns, deletes });
        }
      };
      const none = new Parameters();
      await query('begin', none);
      try {
        const rows = await rewritten(query, () => query(text(false), parameters));
        await query(rows.length > 0 ? 'commit' : 'rollback', none);
        return rows;
      } catch (error) {
        await client.query('rollback').catch(giveUp);
        throw error;
      }
    });
  }

  #query(table: Table): Query {
    return async <R extends object>(text: string, { values, columns }: Parameters) => {
      try {
        return (await this.#queries.query<R>(table.name, text, values)).rows;
      } catch (error) {
        throw fromPostgres(error, { table, parameters: columns, deletes: false, reads: true });
      }
    };
  }
}

async function readRow(query: Query, table: Table, key: readonly string[]): Promise<string[]> {
  const { relation, image } = sqlOf(table);
  const parameters = new Parameters();
  const where = keyIs(table, key, parameters);
  const rows = await query<Row>(`select ${image} from ${relation} t where ${where}`, parameters);
  return rows.map(({ row }) => row);
}

/**
 * The key that a row has after these values were written. `before` is its key until then, if there was one.
 * Null if the new key is not known.
 */
function keyIn(table: Table, values: Values, before?: readonly string[]): string[] | null {
  const key = table.keyColumns.map((name, index) => {
    const value = values.find(({ column }) => column.name === name && !column.structured);
    return value?.text ?? before?.[index];
  });
  return key.every((text) => text !== undefined) ? key : null;
}

/**
 * Whether the error is "cannot perform DELETE RETURNING on relation", or the same for INSERT or UPDATE. The
 * text depends on the language of the server, so this looks at the place in Postgres' source.
 */
function isOfRule(error: unknown): error is DatabaseError {
  return isStatementError(error) && error.code === '0A000' && error.routine === 'RewriteQuery';
}

const gone = () => new PlankError('NOT_FOUND', 'There is no row with this key');
