/**
 * The part of a table that one request may read and write, and the SQL for this part. Invariants:
 * - With AUTH=off, policies do not change the SQL.
 * - With AUTH=jwt, no SQL reads a row or a column that the policy does not admit. The only exception is SQL that judges
 *   a write.
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

/** The names of the filters that a policy has. */
type Act = 'read' | 'insert' | 'update' | 'delete' | 'check';

/** A row that was written. `isSeen` and `isAllowed` are absent if no policy applies. */
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
   * Finds the table with this name. Throws NOT_FOUND if there is no such table, or if the viewer has no rights to the
   * table.
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
    // a viewer that may neither read nor insert rows cannot do anything with the table
    if (!own?.read && !own?.insert) return null;
    return new TableView(table, own, viewer);
  }

  /** Throws NOT_FOUND if the viewer may read no rows of the table. */
  requireReadable(): void {
    if (this.rights?.read === null) throw noTable(this.table.name);
  }

  /** Throws FORBIDDEN if the viewer may insert no rows. */
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

  /** Whether a write can set the column, to the client's value or to a preset of the policy. */
  isSet(column: Column): boolean {
    return this.isWritable(column) || this.rights?.presets.has(column.name) === true;
  }

  /** Throws FORBIDDEN if `columns` is not empty. The error names the columns. */
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

  /** SQL for the image of the row t, with the columns that the viewer may read. */
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

  /** SQL for the columns of a PageRow. */
  get imageAndKey(): string {
    return `${this.image}, ${this.#keyArray}`;
  }

  /** For each act, an SQL condition: the policy allows the act with the row t. Empty if no policy applies. */
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

  /** The filter for the rows that the viewer may read and that `where` admits. */
  rowsOf(where: RowFilter): RowFilter {
    return this.rights?.read ? this.rights.read.and(where) : where;
  }

  /**
   * SQL for the columns of a WrittenRow. The filter `act` judges the row after the write. If the viewer may not read
   * the row, the image has only the key.
   */
  written(act: 'insert' | 'check', parameters: Parameters): string {
    if (this.rights === null) return act === 'insert' ? this.imageAndKey : this.image;
    const [read, allowed] = this.allows(['read', act], parameters).map((condition) => `(${condition}) is true`);
    const key = imageOf(this.table, this.table.keyColumns);
    return `(case when ${read} then ${this.imageSql} else ${key} end)::pg_catalog.text as row, ${this.#keyArray},
            ${read} as "isSeen", ${allowed} as "isAllowed"`;
  }

  /**
   * SQL for the column `isAllowed` of a row t that was not written. Values that are not known yet are null in the row,
   * so the result is false only if the policy surely forbids the row.
   */
  mayAllow(act: 'insert' | 'check', parameters: Parameters): string {
    return `(${this.allows([act], parameters).join()}) is not false as "isAllowed"`;
  }

  /** Throws FORBIDDEN if the policy does not allow one of the rows. */
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
 * SQL for an image of the row t with the columns `names`, in the table's order. The text of each column has the same
 * bytes as in Table.imageSql. Only the size of these columns decides whether the image is partial.
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
