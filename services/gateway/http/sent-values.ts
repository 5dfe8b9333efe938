/**
 * The values that a request writes: the values that the client sent, and the values that the policy sets (presets).
 * Throws a PlankError: FORBIDDEN if the policy does not let the client set a column, else INVALID if a value is wrong.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Column } from '../catalog/catalog.ts';
import { fromZod, PlankError } from './errors.ts';
import { type RowSchemas, rowSchemas, type Value, type Values, valueSchema } from './row-values.ts';
import type { TableView } from './table-view.ts';

export function sentValues(view: TableView, kind: keyof RowSchemas, body: unknown): Values {
  const { table, rights } = view;
  const isNew = kind === 'create';
  if (rights && typeof body === 'object' && body !== null) view.refuse(refusedIn(view, body, isNew));
  const isExpected = (column: Column) => view.isWritable(column) && (isNew || view.isReadable(column));
  const schemas = rights ? rowSchemas(table, isExpected) : rowSchemas(table);
  const parsed = schemas[kind].safeParse(body);
  if (!parsed.success) throw fromZod(parsed.error, `is not a column of ${table.name}`);
  return rights ? withPresets(view, parsed.data) : parsed.data;
}

/**
 * The columns of the body that the client may not set. If the row exists already, columns that the client may read are
 * not among them: the client may send such a column with the value that the row has.
 */
function refusedIn(view: TableView, body: object, isNew: boolean): Column[] {
  return view.table.columns.filter(
    (column) =>
      Object.hasOwn(body, column.name) &&
      !view.isSet(column) &&
      (isNew ? column.writable || !view.isReadable(column) : !view.isReadable(column)),
  );
}

function withPresets(view: TableView, values: Values): Values {
  const presets = [...view.rights!.presets].map(([name, json]) => presetOf(view, name, json));
  const differs = ({ column, text, json }: Value) =>
    presets.some(
      (preset) =>
        preset.column === column &&
        preset.text !== text &&
        !isDeepStrictEqual(JSON.parse(preset.json), JSON.parse(json)),
    );
  view.refuse(values.filter(differs).map(({ column }) => column));
  return [...values.filter(({ column }) => !view.rights!.presets.has(column.name)), ...presets];
}

function presetOf({ table }: TableView, name: string, value: unknown): Value {
  const column = table.columns.find((candidate) => candidate.name === name);
  // without the preset, the row would have another value than the policy demands, so the write is refused
  const unusable = () =>
    new PlankError('FORBIDDEN', `Nobody may write: the policy cannot set the column ${name} of ${table.name}`);
  if (!column) throw unusable();
  const json = JSON.stringify(value);
  if (value === null) return { column, text: null, json };
  const parsed = valueSchema(column).safeParse(value);
  if (!parsed.success) throw unusable();
  return { column, text: parsed.data, json };
}
