/**
 * What is attached: the tables that clients may name, their columns and keys. Read from plank.catalog; read again when an
 * event of action S says that a table changed its shape. Identifiers in SQL come only from here.
 */
import type { Pool } from './postgres.ts';

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
  /** SQL for the JSON image of the row `t`: the same bytes that capture makes */
  imageSql: string;
}

interface CatalogRow {
  id: number;
  name: string;
  schema: string;
  table: string;
  key_columns: string[];
  columns: Column[];
  image_sql: string;
}

export class Catalog {
  readonly #pool: Pool;
  #byId = new Map<number, Table>();
  #byName = new Map<string, Table>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /**
   * Reads everything anew. Returns the ids of tables that are not what they were; the others stay the same objects. Throws when
   * Postgres does not answer; what was known stays.
   */
  async load(): Promise<Set<number>> {
    const { rows } = await this.#pool.query<CatalogRow>('select * from plank.catalog order by id');
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
      };
      const known = before.get(row.id);
      return known && JSON.stringify(known) === JSON.stringify(table) ? known : table;
    });
    this.#byId = new Map(tables.map((table) => [table.id, table]));
    this.#byName = new Map(tables.map((table) => [table.name, table]));
    return new Set([...before].filter(([id, table]) => this.#byId.get(id) !== table).map(([id]) => id));
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
