/**
 * Reads and writes one row for REST, and explains why a write returned no row. A write is one statement
 * that includes its conditions. There are two exceptions:
 * - If a rule of the table rewrites the statement, Postgres may not allow RETURNING. Then a transaction writes
 *   the row and reads it afterwards.
 * - Under a policy, a transaction sets the client's claims for triggers and row security of the database, and
 *   judges the row that was written. If the policy does not allow the row, the transaction is rolled back. A row
 *   is also read in such a transaction.
 */

import { type DatabaseError, isStatementError, quoted } from '#shared/postgres/postgres.ts';
import type { Table } from '../catalog/catalog.ts';
import { type FieldError, invalidFields, PlankError } from './errors.ts';
import { fromPostgres, type StatementContext } from './postgres-problems.ts';
import { conditionSql, type Precondition, requireCondition } from './precondition.ts';
import type { RestQueries } from './rest-pool.ts';
import type { Values } from './row-values.ts';
import { claimsSql, type PageRow } from './table-page.ts';
import type { TableView, WrittenRow } from './table-view.ts';
import { changedValue, keyIs, newValue, Parameters, sameJson } from './value-sql.ts';

type Query = <R extends object>(statement: Statement) => Promise<R[]>;
type Row = Pick<PageRow, 'row'>;
type Verdict = Pick<WrittenRow, 'isAllowed'>;
type Purpose = Pick<StatementContext, 'deletes' | 'reads'>;

interface Statement {
  text: string;
  parameters: Parameters;
}

interface Write<R> {
  /** Makes the statement, with or without RETURNING. */
  statement: (returning: boolean) => Statement;
  /**
   * Writes the row within a transaction, and reads the row. `run` runs the statement without RETURNING. If the result
   * is empty, the transaction is rolled back.
   */
  rewritten: (query: Query, run: () => Promise<unknown>) => Promise<R[]>;
  /** Throws the reason why nothing was written. */
  refused: (query: Query) => Promise<never>;
  /** Makes a query that judges the row as it would be after the write. Changes nothing. */
  proposed?: () => Statement;
  deletes?: boolean;
}

/** Reads and writes rows of one table for one request. */
export class Rows {
  readonly #queries: RestQueries;
  readonly #view: TableView;
  readonly #table: Table;

  constructor(queries: RestQueries, view: TableView) {
    this.#queries = queries;
    this.#view = view;
    this.#table = view.table;
  }

  /** Throws NOT_FOUND. */
  async read(key: readonly string[]): Promise<string> {
    const read = (query: Query) => this.#read(query, key);
    const [found] = await (this.#view.rights === null ? read(this.#query) : this.#transaction({ reads: true }, read));
    if (!found) throw gone();
    return found.row;
  }

  async create(values: Values): Promise<WrittenRow & PageRow> {
    const view = this.#view;
    const statement = (returning: boolean): Statement => {
      const parameters = new Parameters();
      const names = values.map(({ column }) => quoted(column.name)).join(', ');
      const given = values.map((value) => newValue(value, parameters)).join(', ');
      const rows = values.length === 0 ? 'default values' : `(${names}) values (${given})`;
      const end = returning ? ` returning ${view.written('insert', parameters)}` : '';
      return { text: `insert into ${view.relation} as t ${rows}${end}`, parameters };
    };
    return this.#write<WrittenRow & PageRow>({
      statement,
      rewritten: async (query, run) => {
        const key = keyIn(this.#table, values);
        if (!key)
          throw new PlankError(
            'REFUSED',
            'A rule of the table rewrites INSERT, so that Postgres cannot return the row: send its whole key',
          );
        await run();
        const rows = await this.#readWritten(query, key, 'insert');
        return rows.map((row) => ({ ...row, key }));
      },
      proposed: () => {
        const parameters = new Parameters();
        const row = `pg_catalog.json_populate_record(null::${view.relation}, ${jsonOf(values, [], parameters)})`;
        return { text: `select ${view.mayAllow('insert', parameters)} from ${row} t`, parameters };
      },
      refused: () => {
        throw new PlankError(
          'REFUSED',
          'The database did not insert the row: a trigger or a rule of the table prevents it',
        );
      },
    });
  }

  /** Sets columns of one row; the columns in `reset` get their defaults. Resolves with the row's new image. */
  async update(
    key: readonly string[],
    values: Values,
    reset: readonly string[],
    precondition: Precondition,
  ): Promise<WrittenRow> {
    const view = this.#view;
    const readOnly = values.filter(({ column }) => !view.isSet(column));
    const changed = values.filter(({ column }) => view.isSet(column));
    const statement = (returning: boolean): Statement => {
      const parameters = new Parameters();
      const where = [
        keyIs(this.#table, key, parameters),
        ...conditionSql(precondition, view.imageSql, parameters),
        ...readOnly.map((value) => sameJson(view, value, parameters)),
        ...view.allows(['read', 'update'], parameters),
      ].join(' and ');
      const sets = [
        ...changed.map((value) => `${quoted(value.column.name)} = ${changedValue(view, value, parameters)}`),
        ...reset.map((name) => `${quoted(name)} = default`),
      ];
      const written = () => view.written('check', parameters);
      const text =
        sets.length === 0
          ? `select ${written()} from ${view.relation} t where ${where}`
          : `update ${view.relation} as t set ${sets.join(', ')} where ${where}` +
            (returning ? ` returning ${written()}` : '');
      return { text, parameters };
    };
    return this.#write<WrittenRow>({
      statement,
      rewritten: async (query, run) => {
        await this.#explain(query, key, { act: 'update', precondition, readOnly });
        await run();
        return this.#readWritten(query, keyIn(this.#table, changed, key) ?? key, 'check');
      },
      proposed: () => {
        const parameters = new Parameters();
        const changes = jsonOf(changed, reset, parameters);
        const row = `select n.* from ${view.relation} t, pg_catalog.json_populate_record(t, ${changes}) n
                     where ${keyIs(this.#table, key, parameters)}`;
        return { text: `select ${view.mayAllow('check', parameters)} from (${row}) t`, parameters };
      },
      refused: async (query) => {
        await this.#explain(query, key, { act: 'update', precondition, readOnly });
        throw new PlankError(
          'REFUSED',
          'The database did not change the row: a trigger or a rule of the table prevents it',
        );
      },
    });
  }

  async remove(key: readonly string[], precondition: Precondition): Promise<void> {
    const view = this.#view;
    const statement = (returning: boolean): Statement => {
      const parameters = new Parameters();
      const where = [
        keyIs(this.#table, key, parameters),
        ...conditionSql(precondition, view.imageSql, parameters),
        ...view.allows(['read', 'delete'], parameters),
      ].join(' and ');
      const text = `delete from ${view.relation} t where ${where}${returning ? ` returning '' as row` : ''}`;
      return { text, parameters };
    };
    await this.#write<Row & Verdict>({
      statement,
      rewritten: async (query, run) => {
        const before = await this.#explain(query, key, { act: 'delete', precondition, readOnly: [] });
        await run();
        // instead of deleting the row, a rule may keep the row and mark it as deleted, which changes the row's image
        const [after] = await this.#read(query, key);
        return after?.row === before ? [] : [{ row: '' }];
      },
      refused: async (query) => {
        await this.#explain(query, key, { act: 'delete', precondition, readOnly: [] });
        throw new PlankError(
          'REFUSED',
          'The database did not delete the row: a trigger or a rule of the table prevents it',
        );
      },
      deletes: true,
    });
  }

  /**
   * Throws the reason why the request cannot write this row. If there is no reason, resolves with the row's
   * image. If the client may not read the row, the reason is always that the row does not exist.
   */
  async #explain(
    query: Query,
    key: readonly string[],
    { act, precondition, readOnly }: { act: 'update' | 'delete'; precondition: Precondition; readOnly: Values },
  ): Promise<string> {
    const view = this.#view;
    const parameters = new Parameters();
    const where = [keyIs(this.#table, key, parameters), ...view.allows(['read'], parameters)].join(' and ');
    const conditions = [
      ...view.allows([act], parameters),
      ...readOnly.map((value) => sameJson(view, value, parameters)),
    ];
    const [found] = await query<{ row: string; holds: (boolean | null)[] }>({
      text: `select ${view.image}, array[${conditions.join(', ')}]::pg_catalog.bool[] as holds
             from ${view.relation} t where ${where}`,
      parameters,
    });
    if (!found) throw gone();
    const same = found.holds.slice(conditions.length - readOnly.length);
    if (same.length < conditions.length && found.holds[0] !== true)
      throw new PlankError('FORBIDDEN', `You may not ${act} this row`);
    requireCondition(precondition, found.row);
    const wrong = readOnly.filter((_, index) => !same[index]);
    view.refuse(wrong.map(({ column }) => column).filter(({ writable }) => writable));
    const fields = wrong.map(({ column }): FieldError => ({ path: column.name, message: 'is read-only' }));
    if (fields.length > 0) throw invalidFields(fields);
    return found.row;
  }

  async #write<R extends Verdict>(write: Write<R>): Promise<R> {
    const { proposed, refused } = write;
    const isPlain = this.#view.rights === null;
    let rows: R[];
    try {
      rows = await this.#run(write);
    } catch (error) {
      // Postgres checks constraints before the policy judges the row. So the error of a constraint may reveal that
      // another row has certain values, although the client may neither read nor write such values. If the policy does
      // not allow the proposed row, `#judge` throws FORBIDDEN instead.
      if (!isPlain && proposed && isOfConstraint(error)) await this.#judge(proposed);
      throw error;
    }
    const [row] = rows;
    if (row) return row;
    return isPlain ? refused(this.#query) : (this.#transaction({ reads: true }, refused) as Promise<never>);
  }

  /** Throws FORBIDDEN if the policy does not allow the proposed row, or if the row cannot be judged. */
  async #judge(proposed: () => Statement): Promise<void> {
    try {
      await this.#transaction({}, (query) => query<Verdict>(proposed()));
    } catch (error) {
      // the row cannot be judged. For example, a column with a default has a type that is a domain without null.
      if (error instanceof PlankError && error.status < 500) this.#view.requireAllowed([{ isAllowed: false }]);
      throw error;
    }
  }

  /**
   * Runs the statement with RETURNING. If a policy applies, a transaction encloses the statement. If a rule of the
   * table forbids RETURNING, begins a new transaction and calls `rewritten`.
   */
  async #run<R extends Verdict>({ statement, rewritten, deletes = false }: Write<R>): Promise<R[]> {
    try {
      return this.#view.rights === null
        ? await this.#single<R>(statement(true), { deletes })
        : await this.#transaction({ deletes }, (query) => query<R>(statement(true)));
    } catch (error) {
      if (!(error instanceof PlankError && isOfRule(error.cause))) throw error;
      return this.#transaction({ deletes }, (query) => rewritten(query, () => query(statement(false))));
    }
  }

  /** Commits if `work` resolves with at least one row, and the policy allows the rows. Otherwise rolls back. */
  async #transaction<R extends Verdict>(purpose: Purpose, work: (query: Query) => Promise<R[]>): Promise<R[]> {
    const { claims } = this.#view;
    return this.#queries.use(this.#table.name, async ({ client, giveUp, requireClient }) => {
      const query: Query = async <T extends object>({ text, parameters: { values, columns } }: Statement) => {
        requireClient();
        try {
          return (await client.query<T>(text, values)).rows;
        } catch (error) {
          if (!isStatementError(error)) giveUp(error as Error);
          throw fromPostgres(error, { table: this.#table, parameters: columns, ...purpose });
        }
      };
      await query({ text: 'begin', parameters: new Parameters() });
      try {
        if (claims !== null) {
          const parameters = new Parameters();
          await query({ text: claimsSql(parameters.add(claims)), parameters });
        }
        const rows = await work(query);
        this.#view.requireAllowed(rows);
        await query({ text: rows.length > 0 ? 'commit' : 'rollback', parameters: new Parameters() });
        return rows;
      } catch (error) {
        await client.query('rollback').catch(giveUp);
        throw error;
      }
    });
  }

  readonly #query: Query = (statement) => this.#single(statement, { reads: true });

  async #single<R extends object>(
    { text, parameters: { values, columns } }: Statement,
    purpose: Purpose,
  ): Promise<R[]> {
    try {
      return (await this.#queries.query<R>(this.#table.name, text, values)).rows;
    } catch (error) {
      throw fromPostgres(error, { table: this.#table, parameters: columns, ...purpose });
    }
  }

  #read(query: Query, key: readonly string[]): Promise<(Row & Verdict)[]> {
    const view = this.#view;
    const parameters = new Parameters();
    const where = [keyIs(this.#table, key, parameters), ...view.allows(['read'], parameters)].join(' and ');
    const text = `select ${view.image} from ${view.relation} t where ${where}`;
    return query<Row>({ text, parameters });
  }

  #readWritten(query: Query, key: readonly string[], act: 'insert' | 'check'): Promise<WrittenRow[]> {
    const parameters = new Parameters();
    const where = keyIs(this.#table, key, parameters);
    const text = `select ${this.#view.written(act, parameters)} from ${this.#view.relation} t where ${where}`;
    return query<WrittenRow>({ text, parameters });
  }
}

/**
 * The key that a row has after these values were written. `before` is the key of the row before the write, if the row
 * existed. Null: the new key is not known.
 */
function keyIn(table: Table, values: Values, before?: readonly string[]): string[] | null {
  const key = table.keyColumns.map((name, index) => {
    const value = values.find(({ column }) => column.name === name && !column.structured);
    return value?.text ?? before?.[index];
  });
  return key.every((text) => text !== undefined) ? key : null;
}

/**
 * Whether the error is "cannot perform DELETE RETURNING on relation", or the same for INSERT or UPDATE.
 * The error's text depends on the language of the server. So this function looks at the routine in
 * Postgres' source that raised the error.
 */
function isOfRule(error: unknown): error is DatabaseError {
  return isStatementError(error) && error.code === '0A000' && error.routine === 'RewriteQuery';
}

/** Whether a constraint of the database was violated. */
const isOfConstraint = (error: unknown): boolean =>
  error instanceof PlankError && isStatementError(error.cause) && error.cause.code?.startsWith('23') === true;

/**
 * A parameter with these values as a JSON object, and with null for each column in `unknown`. The object leaves out
 * columns of a structured type, because no filter can name them.
 */
function jsonOf(values: Values, unknown: readonly string[], parameters: Parameters): string {
  const known = values
    .filter(({ column }) => !column.structured)
    .map(({ column, json }) => `${JSON.stringify(column.name)}:${json}`);
  const nulls = unknown.map((name) => `${JSON.stringify(name)}:null`);
  return `${parameters.add(`{${[...known, ...nulls].join(',')}}`)}::pg_catalog.json`;
}

const gone = () => new PlankError('NOT_FOUND', 'There is no row with this key');
