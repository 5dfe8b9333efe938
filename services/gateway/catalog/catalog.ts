/**
 * What is attached: the tables that clients may name, their columns and keys. Read from plank.catalog; read again when an
 * event of action S says that a table changed its shape. Identifiers in SQL come only from here.
 */
import { limited, type Pool } from '#shared/postgres/postgres.ts';

/** A question that is lost with its connection holds up all changes behind it: it is asked again after this time. 500 tables take 0.3 s. */
const loadMs = 4_000;

export interface Column {
  name: string;
  /** as Postgres prints it: "character varying(20)", "integer[]" */
  type: string;
  /** pg_type.typname, without domains: "varchar", "_int4"; a type of users has its schema before it */
  base: string;
  /**
   * The type as SQL, under any search_path and without a modifier, where its JSON is neither its text nor a number: a composite type, an
   * array of users' types, a type with a cast to json.
   */
  structured?: string | null;
  /** operators of the primary key as SQL; null where the column is not in it */
  equals?: string | null;
  above?: string | null;
  nullable: boolean;
  /** an INSERT may leave it out */
  optional: boolean;
  writable: boolean;
  /** its values are labels */
  enum?: boolean;
  /** texts that differ may be equal */
  nondeterministic?: boolean;
  /** SQL for its value in the row `t` as images have it, where that is not the column itself */
  value?: string | null;
  /** generated when it is read; `value` gives JSON */
  virtual?: boolean;
}

export interface Table {
  /** names the table inside events */
  id: number;
  /** what clients call it: "items", or "sales.orders" outside the schema public */
  name: string;
  schema: string;
  table: string;
  keyColumns: string[];
  /** without the excluded ones */
  columns: Column[];
  /** SQL for the JSON image of the row `t`: the same bytes that capture makes, partial where the row is above the bound */
  imageSql: string;
  /** SQL for the partial image of the row `t`, null where the row is not above the bound; null where none can be */
  largeSql: string | null;
  /** the bound, in bytes */
  rowBytes: number;
  /** another one where anything of the above is */
  version: string;
}

/** A table of which columns were excluded after they had been captured. */
export interface Former {
  /** what transactions before this one captured is meant */
  xid: bigint;
  /** the members of such images that may be read */
  columns: ReadonlySet<string>;
  /** whether their keys may be */
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
}

export class Catalog {
  readonly #pool: Pool;
  #byId = new Map<number, Table>();
  #byName = new Map<string, Table>();
  #former: ReadonlyMap<number, Former> = new Map();
  #formerRows = '[]';
  /** ends with the load before: what is read later counts */
  #loading: Promise<unknown> = Promise.resolve();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /**
   * Reads everything anew. Returns the ids of tables that are not what they were; the others stay the same objects. Throws when
   * Postgres does not answer; what was known stays.
   */
  load(): Promise<Set<number>> {
    const loaded = this.#loading.then(() => this.#load());
    this.#loading = loaded.catch(() => {});
    return loaded;
  }

  async #load(): Promise<Set<number>> {
    const { rows } = await this.#pool.query<CatalogRow>(limited(loadMs, 'select * from plank.catalog order by id'));
    const before = this.#byId;
    const tables = rows.map((row): Table => {
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
      };
      const known = before.get(row.id);
      return known && JSON.stringify(known) === JSON.stringify(table) ? known : table;
    });
    // after the tables: whoever knows that a column is excluded knows what of before may be read
    await this.loadFormer();
    this.#byId = new Map(tables.map((table) => [table.id, table]));
    this.#byName = new Map(tables.map((table) => [table.name, table]));
    return new Set([...before].filter(([id, table]) => this.#byId.get(id) !== table).map(([id]) => id));
  }

  /** Reads anew what was excluded after it had been captured. Resolves with whether that is more, or other, than was known. */
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

  /** By Table.id. */
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
