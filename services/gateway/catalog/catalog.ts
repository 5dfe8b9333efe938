/**
 * The attached tables with their columns and keys, as in the view plank.catalog. They are loaded again
 * after each event with action S: a table was altered, attached or detached. Identifiers in SQL come only
 * from here.
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { limited, type Pool } from '#shared/postgres/postgres.ts';

/**
 * A query of the catalog fails after this time. All later changes wait for this query, and a dead
 * connection never answers it. So the time is short. Loading 500 tables takes 0.3 s.
 */
const loadMs = 4_000;

export interface Column {
  name: string;
  /** as format_type prints it: "character varying(20)", "integer[]" */
  type: string;
  /**
   * the type's name in pg_type.typname, for example "varchar" or "_int4". A domain has the name of its
   * base type. The name of a user's type includes its schema.
   */
  base: string;
  /**
   * The name of a structured type as SQL, without a modifier and independent of search_path. A structured
   * type is a composite type, an array of users' types, or a type with a cast to json: its JSON is
   * neither its text nor a number. For other types, this is not set.
   */
  structured?: string | null;
  /** the operators = and > of the primary key, as SQL; null if the column is not in the key */
  equals?: string | null;
  above?: string | null;
  nullable: boolean;
  /** an INSERT may leave the column out */
  optional: boolean;
  writable: boolean;
  /** the type is an enum */
  enum?: boolean;
  /** the collation is non-deterministic: different texts can be equal */
  nondeterministic?: boolean;
  /** SQL for the column's value in images, over the row with the alias t; null: the value is the column itself */
  value?: string | null;
  /** GENERATED … VIRTUAL, computed when the column is read; then `value` returns JSON */
  virtual?: boolean;
}

export interface Table {
  /** identifies the table in events */
  id: number;
  /** the name that clients use: "items", or "sales.orders" for a table outside the schema public */
  name: string;
  schema: string;
  table: string;
  keyColumns: string[];
  /** without excluded columns */
  columns: Column[];
  /**
   * SQL for the JSON image of the row with the alias t. The image has the same bytes as the one that
   * capture makes. If the row is above the size bound, the image is partial.
   */
  imageSql: string;
  /**
   * SQL for the partial image of the row. The result of this SQL is null if the row is within the size
   * bound. `largeSql` itself is null if no row of the table can be above the bound.
   */
  largeSql: string | null;
  /** the size bound of a row's image, in bytes */
  rowBytes: number;
  /** changes whenever anything above changes */
  version: string;
  /** which viewers may do what with the table's rows, with AUTH=jwt; one policy for each role */
  policies: readonly PolicyRow[];
  /** the id of the transaction that changed the policies last; null: they never changed */
  policiesVersion: string | null;
}

/** A policy as plank.allow stored it. A filter is JSON; null: nothing is allowed, `{}`: every row. */
const policyRow = z.object({
  role: z.string(),
  read: z.unknown(),
  insert: z.unknown(),
  update: z.unknown(),
  delete: z.unknown(),
  /** which rows an update may lead to; null: as `update` */
  check: z.unknown(),
  /** null: every column that is not excluded; the columns of the key are always readable */
  read_columns: z.array(z.string()).nullable(),
  /** null: every writable column */
  write_columns: z.array(z.string()).nullable(),
  /** by column: a JSON value, or `{"$claim": …}` */
  presets: z.record(z.string(), z.unknown()).nullable(),
  /** set if the policy cannot be used: a table or a column that the policy names was replaced or is gone */
  problem: z.string().optional(),
});
export type PolicyRow = z.infer<typeof policyRow>;

const policyRows = z.array(policyRow);

/** The policies in an event of the log. Null: the text has another form, so nothing may be allowed. */
export function parsePolicies(text: string): PolicyRow[] | null {
  try {
    return policyRows.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** The policies `known`. Each one that has a problem in `now`, and is otherwise the same there, has the problem too. */
function usable(known: readonly PolicyRow[], now: readonly PolicyRow[]): readonly PolicyRow[] {
  const broken = now.filter(({ problem }) => problem !== undefined);
  if (broken.length === 0) return known;
  return known.map(
    (policy) => broken.find((one) => isDeepStrictEqual({ ...policy, problem: one.problem }, one)) ?? policy,
  );
}

/**
 * About a table with columns that were excluded after they had been captured. Older images still contain
 * these columns.
 */
export interface Former {
  /** the images of transactions before this one still contain the columns */
  xid: bigint;
  /** the columns of these images that may be sent */
  columns: ReadonlySet<string>;
  /** whether the keys of these changes may be sent */
  key: boolean;
}

interface FormerRow {
  id: number;
  former_xid: string;
  former_columns: string[];
  former_key: boolean;
}

interface CatalogRow {
  id: number;
  name: string;
  schema: string;
  table: string;
  key_columns: string[];
  columns: Column[];
  image_sql: string;
  version: string;
  large_sql: string | null;
  row_bytes: number;
  policies: PolicyRow[];
  policies_version: string | null;
}

export class Catalog {
  readonly #pool: Pool;
  #byId = new Map<number, Table>();
  #byName = new Map<string, Table>();
  #former: ReadonlyMap<number, Former> = new Map();
  #formerRows = '[]';
  /** where the policies of a table last changed in the log, by Table.id */
  readonly #policiesChangedAt = new Map<number, number>();
  /** loads run one after the other, so that the result of the last one stays */
  #loading: Promise<unknown> = Promise.resolve();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /**
   * For the start, and after the log did not go on: loads all tables with their policies, and where these changed.
   * Rejects if Postgres does not answer.
   */
  async begin(): Promise<void> {
    await this.#afterOthers(() => this.#load(new Map()));
    const { rows } = await this.#pool.query<{ id: number; seq: string }>(
      limited(loadMs, 'select id, seq from plank.policies_changed()'),
    );
    this.#policiesChangedAt.clear();
    for (const { id, seq } of rows) this.#noteChange(id, Number(seq));
  }

  /**
   * Loads all tables again. A table that this gateway has already keeps its policies, because the log says when they
   * change. But a policy that cannot be used with the tables as they are now allows nothing at once. Resolves with the
   * ids of tables that changed or are gone; the other tables stay the same objects. If Postgres does not answer, rejects
   * and keeps the tables as they were.
   */
  load(): Promise<Set<number>> {
    return this.#afterOthers(() => this.#load(null));
  }

  #afterOthers<Result>(load: () => Promise<Result>): Promise<Result> {
    const loaded = this.#loading.then(load);
    this.#loading = loaded.catch(() => {});
    return loaded;
  }

  /** @param keepFrom the tables that keep their policies; null: those that are there when Postgres has answered */
  async #load(keepFrom: ReadonlyMap<number, Table> | null): Promise<Set<number>> {
    const { rows } = await this.#pool.query<CatalogRow>(limited(loadMs, 'select * from plank.catalog order by id'));
    // `former` is loaded after the tables, so that it is never older than the tables. Code that sees that
    // a column is excluded also needs to find which columns of older images may be sent.
    await this.loadFormer();
    // read after all waiting: policies that were set meanwhile would be lost
    const before = keepFrom ?? this.#byId;
    const tables = rows.map((row): Table => {
      const known = before.get(row.id);
      const table = {
        id: row.id,
        name: row.name,
        schema: row.schema,
        table: row.table,
        keyColumns: row.key_columns,
        columns: row.columns,
        imageSql: row.image_sql,
        version: row.version,
        largeSql: row.large_sql,
        rowBytes: row.row_bytes,
        policies: known ? usable(known.policies, row.policies) : row.policies,
        policiesVersion: known ? known.policiesVersion : row.policies_version,
      };
      return known && JSON.stringify(known) === JSON.stringify(table) ? known : table;
    });
    this.#byId = new Map(tables.map((table) => [table.id, table]));
    this.#byName = new Map(tables.map((table) => [table.name, table]));
    return new Set([...before].filter(([id, table]) => this.#byId.get(id) !== table).map(([id]) => id));
  }

  /**
   * The policies of the table `id` are these from the position `seq` on, by the transaction `xid`. The table becomes
   * another object.
   */
  setPolicies(id: number, policies: readonly PolicyRow[], { seq, xid }: { seq: number; xid: bigint }): void {
    this.#noteChange(id, seq);
    const table = this.#byId.get(id);
    if (!table) return;
    const changed = { ...table, policies, policiesVersion: String(xid) };
    this.#byId.set(id, changed);
    this.#byName.set(table.name, changed);
  }

  #noteChange(id: number, seq: number): void {
    this.#policiesChangedAt.set(id, Math.max(seq, this.policiesChangedAt(id)));
  }

  /**
   * The seq of the last change of the policies of the table `id`. After `begin`, it is the last seq of the log row that
   * holds the change, so it may be higher. 0: no such change is known from the log.
   */
  policiesChangedAt(id: number): number {
    return this.#policiesChangedAt.get(id) ?? 0;
  }

  /** Loads `former` again. Resolves with true if it changed. */
  async loadFormer(): Promise<boolean> {
    const { rows } = await this.#pool.query<FormerRow>(limited(loadMs, 'select * from plank.former order by id'));
    const text = JSON.stringify(rows);
    if (text === this.#formerRows) return false;
    this.#formerRows = text;
    this.#former = new Map(
      rows.map((row) => [
        row.id,
        { xid: BigInt(row.former_xid), columns: new Set(row.former_columns), key: row.former_key },
      ]),
    );
    return true;
  }

  /** Tables with columns excluded after capture, by Table.id. */
  get former(): ReadonlyMap<number, Former> {
    return this.#former;
  }

  byId(id: number): Table | undefined {
    return this.#byId.get(id);
  }

  byName(name: string): Table | undefined {
    return this.#byName.get(name);
  }

  get tables(): readonly Table[] {
    return [...this.#byName.values()];
  }
}
