/**
 * A table as one request may read and write it, and the SQL of that. Invariants:
 * - With AUTH=off the SQL is the same as if there were no policies.
 * - Otherwise no SQL reads a row or a column that the policy does not admit, other than to judge a write.
 */
import { escapeLiteral } from 'pg';
import { quoted } from '#shared/postgres/postgres.ts';
import type { Viewer } from '../access/viewer.ts';
import type { Catalog, Column, Table } from '../catalog/catalog.ts';
import type { RowFilter } from '../filter/row-filter.ts';
import type { Rights, TableRights } from '../rights/rights.ts';
import { PlankError } from './errors.ts';
import type { Parameters } from './value-sql.ts';

interface Terms {
  catalog: Catalog;
  rights: Rights;
}

/** What a policy says about rows. */
type Act = 'read' | 'insert' | 'update' | 'delete' | 'check';

/** A row that was written. Without a policy there are no `isSeen` and `isAllowed`. */
export interface WrittenRow {
  /** as JSON */
  row: string;
  /** false: the viewer may not read the row, and `row` has only the columns of the key */
  isSeen?: boolean;
  /** false: the policy does not allow the row, so the write must be rolled back */
  isAllowed?: boolean;
}

export class TableView {
  readonly table: Table;
  /** null: AUTH=off, and everything is allowed */
  readonly rights: TableRights | null;
  readonly #viewer: Viewer | null;
  #imageSql: string | undefined;

  private constructor(table: Table, rights: TableRights | null, viewer: Viewer | null) {
    this.table = table;
    this.rights = rights;
    this.#viewer = viewer;
  }

  /**
   * The table with this name. Throws NOT_FOUND, also if the viewer has no rights to the table: then it looks as if it
   * did not exist.
   */
  static find(name: string, viewer: Viewer | null, { catalog, rights }: Terms): TableView {
    const table = catalog.byName(name);
    const view = table && TableView.#of(table, viewer, rights);
    if (!view) throw noTable(name);
    return view;
  }

  /** All tables that exist for the viewer. */
  static all(viewer: Viewer | null, { catalog, rights }: Terms): TableView[] {
    return catalog.tables.flatMap((table) => TableView.#of(table, viewer, rights) ?? []);
  }

  static #of(table: Table, viewer: Viewer | null, rights: Rights): TableView | null {
    if (viewer === null) return new TableView(table, null, null);
    const own = rights.of(table, viewer);
    // who may neither read rows nor make some cannot do anything with the table
    if (!own?.read && !own?.insert) return null;
    return new TableView(table, own, viewer);
  }

  /** Throws NOT_FOUND if the viewer may read no rows: then the table has no rows, and looks as if it did not exist. */
  requireReadable(): void {
    if (this.rights?.read === null) throw noTable(this.table.name);
  }

  /** Throws FORBIDDEN. */
  requireInsert(): void {
    if (this.rights?.insert === null)
      throw new PlankError('FORBIDDEN', `You may not insert rows into ${this.table.name}`);
  }

  isReadable({ name }: Column): boolean {
    if (this.rights?.read === null) return this.table.keyColumns.includes(name);
    return this.rights?.readable?.includes(name) ?? true;
  }

  /** Whether a client may choose the column's value. */
  isWritable({ name, writable }: Column): boolean {
    if (this.rights === null) return writable;
    const { presets, writable: names } = this.rights;
    return writable && !presets.has(name) && (names === null || names.includes(name));
  }

  /** Whether a write sets the column, if there is a value for it. */
  isSet(column: Column): boolean {
    return this.isWritable(column) || this.rights?.presets.has(column.name) === true;
  }

  /** Throws FORBIDDEN, which names the columns, if there are any. */
  refuse(columns: readonly Column[]): void {
    if (columns.length === 0) return;
    const names = columns.map(({ name }) => name);
    throw new PlankError('FORBIDDEN', `You may not set these columns of ${this.table.name}: ${names.join(', ')}`, {
      fields: names.map((path) => ({ path, message: 'must not be set' })),
    });
  }

  /** The claims of the viewer as JSON; null: AUTH=off. */
  get claims(): string | null {
    return this.#viewer && JSON.stringify(this.#viewer.claims);
  }

  /** SQL for the image of the row t, with the columns that may be read. */
  get imageSql(): string {
    const readable = this.rights?.readable;
    return (this.#imageSql ??= readable ? imageOf(this.table, readable) : this.table.imageSql);
  }

  get relation(): string {
    return `${quoted(this.table.schema)}.${quoted(this.table.table)}`;
  }

  get keyList(): string {
    return this.#key.join(', ');
  }

  get image(): string {
    return `(${this.imageSql})::pg_catalog.text as row`;
  }

  /** As a row of PageRow. */
  get imageAndKey(): string {
    return `${this.image}, ${this.#keyArray}`;
  }

  /** SQL conditions: the policy allows this with the row t. Without a policy there are none. */
  allows(acts: readonly Act[], parameters: Parameters): string[] {
    const { rights } = this;
    if (rights === null) return [];
    return acts.map((act) => {
      const filter = rights[act];
      if (filter === null) return 'false';
      const { text, values } = filter.sql(parameters.values.length + 1);
      parameters.addAll(values as string[]);
      return text;
    });
  }

  /** The rows that the viewer may read and the client asked for. */
  rowsOf(where: RowFilter): RowFilter {
    return this.rights?.read ? this.rights.read.and(where) : where;
  }

  /**
   * SQL of the columns of a WrittenRow. `act` judges the row as it is now. If the viewer may not read it, its image has
   * only the key.
   */
  written(act: 'insert' | 'check', parameters: Parameters): string {
    if (this.rights === null) return act === 'insert' ? this.imageAndKey : this.image;
    const [read, allowed] = this.allows(['read', act], parameters).map((condition) => `(${condition}) is true`);
    const key = imageOf(this.table, this.table.keyColumns);
    return `(case when ${read} then ${this.imageSql} else ${key} end)::pg_catalog.text as row, ${this.#keyArray},
            ${read} as "isSeen", ${allowed} as "isAllowed"`;
  }

  /** SQL of the column of a verdict on a row that was not written, in which unknown values are null. */
  mayAllow(act: 'insert' | 'check', parameters: Parameters): string {
    return `(${this.allows([act], parameters).join()}) is not false as "isAllowed"`;
  }

  /** Throws FORBIDDEN if a row that was written is not one that the policy allows. */
  requireAllowed(rows: readonly Pick<WrittenRow, 'isAllowed'>[]): void {
    if (rows.some(({ isAllowed }) => isAllowed === false))
      throw new PlankError('FORBIDDEN', `You may not write a row of ${this.table.name} with these values`);
  }

  get #key(): string[] {
    return this.table.keyColumns.map((name) => `t.${quoted(name)}`);
  }

  get #keyArray(): string {
    return `array[${this.#key.map((column) => `${column}::pg_catalog.text`).join(', ')}] as key`;
  }
}

const noTable = (name: string) => new PlankError('NOT_FOUND', `There is no table ${name.slice(0, 100)} here`);

/**
 * SQL for an image of the row t with some columns, in the table's order. Each column has the same bytes as in
 * Table.imageSql. If the row is large, only these columns decide whether the image is partial.
 */
function imageOf({ columns, keyColumns, largeSql }: Table, names: readonly string[]): string {
  const shown = columns
    .filter(({ name }) => names.includes(name))
    .map(({ name, base, value }) => ({ name, base, value: value ?? `t.${quoted(name)}` }));
  const list = shown.map(({ name, value }) => `${value} as ${quoted(name)}`).join(', ');
  const whole = `(select pg_catalog.to_json(image.*)::pg_catalog.text from (select ${list}) image)`;
  // no column of the key is large
  if (largeSql === null || shown.length === keyColumns.length) return whole;
  const parts = shown.map(({ base, value }) => `plank.${textual.test(base) ? 'rendered' : 'rendered_any'}(${value})`);
  const labels = shown.map(({ name }) => escapeLiteral(JSON.stringify(name)));
  const isKey = shown.map(({ name }) => String(keyColumns.includes(name)));
  const bounded = `plank.partial_image(array[${parts.join(', ')}], array[${labels.join(', ')}]::pg_catalog.text[],
    array[${isKey.join(', ')}], true)`;
  return `case when ${largeSql} is null then ${whole} else coalesce(${bounded}, ${whole}) end`;
}

/** types whose size is known without rendering the value (plank.rendered) */
const textual = /^(text|varchar|bytea)$/;
