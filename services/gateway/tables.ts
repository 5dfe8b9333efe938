/**
 * CRUD over the attached tables: /api/<table> and /api/<table>/<key>.
 *
 * A row's JSON is the text that Postgres renders (Table.imageSql), the same bytes that capture makes and the WebSocket
 * sends: it is passed on as it is, never parsed. Identifiers in SQL come only from the catalogue, values only as parameters
 * without casts, so that Postgres takes each as the type of its column (a cast to varchar(20) would cut silently).
 */
import { isUtf8 } from 'node:buffer';
import express, { type Request, type RequestHandler, type Response, Router } from 'express';
import { z } from 'zod';
import type { Catalog, Table } from '../../shared/catalog.ts';
import { PlankError } from '../../shared/errors.ts';
import { type Pool, quoted } from '../../shared/postgres.ts';
import { type Filter, FilterError, parseFilter } from './filter.ts';
import { filterSql } from './filter-compile.ts';
import { fromPostgres, invalid, invalidFields, methodNotAllowed, named } from './problems.ts';
import { RestPool } from './rest-pool.ts';
import { formatKey, keepDigits, parseKey, readKey, rowSchemas, type Values } from './row-schema.ts';
import { type PageRow, readPage } from './table-page.ts';

/** The SQL fragments of a table, all about the alias t. */
function sqlOf(table: Table) {
  const key = table.keyColumns.map((name) => `t.${quoted(name)}`);
  return {
    relation: `${quoted(table.schema)}.${quoted(table.table)}`,
    keyList: key.join(', '),
    image: `(${table.imageSql})::text as row`,
    imageAndKey: `(${table.imageSql})::text as row, array[${key.map((column) => `${column}::text`).join(', ')}] as key`,
    whereKey: `where ${key.map((column, index) => `${column} = $${index + 1}`).join(' and ')}`,
  };
}

interface Row {
  row: string;
}

const listQuery = z.strictObject({
  limit: z
    .string({ error: 'must be given once' })
    .refine((text) => /^\d{1,4}$/.test(text) && Number(text) >= 1 && Number(text) <= 1000, {
      error: 'must be a whole number between 1 and 1000',
    })
    .default('100')
    .transform(Number),
  cursor: z.string({ error: 'must be given once' }).optional(),
  where: z.string({ error: 'must be given once' }).optional(),
});
const noQuery = z.strictObject({});

const cursorContent = z.array(z.string());

function formatCursor(key: readonly string[]): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url');
}

function parseCursor(table: Table, cursor: string): string[] {
  try {
    const texts = cursorContent.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString()));
    const key = texts.length === table.keyColumns.length ? readKey(table, texts) : undefined;
    if (key?.ok) return key.values;
  } catch {
    // fails below, the same for every way of being wrong
  }
  throw invalidFields([{ path: 'cursor', message: `is not a cursor of ${table.name}` }]);
}

function parseWhere(table: Table, where: string): Filter {
  let json: unknown;
  try {
    json = JSON.parse(where, keepDigits);
  } catch (error) {
    throw invalidFields([{ path: 'where', message: 'must be a filter as JSON' }], error);
  }
  try {
    return parseFilter(table, json);
  } catch (error) {
    if (error instanceof FilterError) throw invalidFields([{ path: error.path, message: error.problem }], error);
    throw error;
  }
}

export interface TablesOptions {
  pool: Pool;
  catalog: Catalog;
  maxBodyBytes: number;
}

export function tablesRouter({ pool, catalog, maxBodyBytes }: TablesOptions): Router {
  const connections = new RestPool(pool);
  const router = Router();

  const tableOf = (request: Request): Table => {
    const name = String(request.params['table']);
    const table = catalog.byName(name);
    if (!table) throw new PlankError('NOT_FOUND', `There is no table ${name.slice(0, 100)} here`);
    return table;
  };

  const keyOf = (request: Request, table: Table): string[] => {
    // not request.params.id: a comma that belongs to a value is still encoded here
    const key = parseKey(table, request.path.split('/')[2]!);
    if (!key.ok) throw invalidFields(key.fields);
    return key.values;
  };

  const query = async <R extends Row>(
    table: Table,
    text: string,
    values: readonly (string | string[] | null)[],
    parameters: readonly string[],
    deletes = false,
  ): Promise<R[]> => {
    try {
      return (await connections.query<R & { row: string }>(table.name, text, [...values])).rows;
    } catch (error) {
      throw fromPostgres(error, { table, parameters, deletes });
    }
  };

  const list = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const { limit, cursor, where } = parse(listQuery, request.query, 'is not a parameter of this address');
    const sql = sqlOf(table);
    const after = cursor === undefined ? [] : parseCursor(table, cursor);
    const filter = filterSql(parseWhere(table, where ?? '{}'), after.length + 1);
    const behind = `(${sql.keyList}) > (${after.map((_, index) => `$${index + 1}`).join(', ')})`;
    const conditions = after.length > 0 ? `${behind} and ${filter.text}` : filter.text;
    // one more than asked for tells whether there is another page
    const text = `select ${sql.imageAndKey} from ${sql.relation} t where ${conditions} order by ${sql.keyList} limit ${limit + 1}`;
    const { rows, more } = await readPage(connections, table.name, {
      text,
      values: [...after, ...filter.values],
      limit,
    }).catch((error: unknown) => {
      throw fromPostgres(error, { table, parameters: table.keyColumns, deletes: false });
    });
    if (more) {
      const next = formatCursor(rows.at(-1)!.key);
      const filtered = where === undefined ? '' : `&where=${encodeURIComponent(where)}`;
      const address = `${request.baseUrl}/${encodeURIComponent(table.name)}?limit=${limit}${filtered}&cursor=${next}`;
      response.set({ Link: `<${address}>; rel="next"`, 'Plank-Next-Cursor': next });
    }
    sendJson(response, `[${rows.map(({ row }) => row).join(',')}]`);
  };

  const read = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const sql = sqlOf(table);
    const text = `select ${sql.image} from ${sql.relation} t ${sql.whereKey}`;
    sendJson(response, found(await query(table, text, key, table.keyColumns)).row);
  };

  const create = async (request: Request, response: Response) => {
    const table = tableOf(request);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const values = parse(rowSchemas(table).create, bodyOf(request), `is not a column of ${table.name}`);
    const names = Object.keys(values);
    const sql = sqlOf(table);
    const rows =
      names.length === 0
        ? 'default values'
        : `(${names.map(quoted).join(', ')}) values (${names.map((_, index) => `$${index + 1}`).join(', ')})`;
    const text = `insert into ${sql.relation} as t ${rows} returning ${sql.imageAndKey}`;
    const [made] = await query<PageRow>(table, text, Object.values(values), names);
    // a trigger or a rule of the table may have swallowed the row
    if (!made) throw new PlankError('INVALID', 'The database did not keep the row');
    response.status(201).location(`${request.baseUrl}/${encodeURIComponent(table.name)}/${formatKey(made.key)}`);
    sendJson(response, made.row);
  };

  /** Sets columns of one row; `reset` go back to their default. */
  const write = async (request: Request, response: Response, table: Table, values: Values, reset: string[]) => {
    const key = keyOf(request, table);
    const sql = sqlOf(table);
    const names = Object.keys(values);
    const sets = [
      ...names.map((name, index) => `${quoted(name)} = $${key.length + index + 1}`),
      ...reset.map((name) => `${quoted(name)} = default`),
    ];
    const text =
      sets.length === 0
        ? `select ${sql.image} from ${sql.relation} t ${sql.whereKey}`
        : `update ${sql.relation} as t set ${sets.join(', ')} ${sql.whereKey} returning ${sql.image}`;
    const rows = await query(table, text, [...key, ...Object.values(values)], [...table.keyColumns, ...names]);
    sendJson(response, found(rows).row);
  };

  const replace = async (request: Request, response: Response) => {
    const table = tableOf(request);
    keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const values = parse(rowSchemas(table).replace, bodyOf(request), `is not a column of ${table.name}`);
    const reset = table.columns
      .filter(({ name, writable }) => writable && !Object.hasOwn(values, name) && !table.keyColumns.includes(name))
      .map(({ name }) => name);
    await write(request, response, table, values, reset);
  };

  const patch = async (request: Request, response: Response) => {
    const table = tableOf(request);
    keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const values = parse(rowSchemas(table).patch, bodyOf(request), `is not a column of ${table.name}`);
    await write(request, response, table, values, []);
  };

  const remove = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const sql = sqlOf(table);
    const text = `delete from ${sql.relation} t ${sql.whereKey} returning '' as row`;
    found(await query(table, text, key, table.keyColumns, true));
    response.status(204).end();
  };

  // before the body is read: nobody uploads to a table that is not there
  const findTable: RequestHandler = (request, _response, next) => {
    tableOf(request);
    next();
  };
  const body = jsonBody(maxBodyBytes);

  router
    .route('/:table')
    .all(named('/api/:table'), findTable)
    .get(list)
    .post(body, create)
    .all(methodNotAllowed('GET, HEAD, POST'));
  router
    .route('/:table/:id')
    .all(named('/api/:table/:id'), findTable)
    .get(read)
    .put(body, replace)
    .patch(body, patch)
    .delete(remove)
    .all(methodNotAllowed('GET, HEAD, PUT, PATCH, DELETE'));
  return router;
}

function jsonBody(limit: number): RequestHandler {
  return express.json({
    limit,
    strict: false, // whatever is no object is refused with the fields, by one kind of answer
    reviver: keepDigits,
    verify: (_request, _response, bytes, encoding) => {
      if (encoding === 'utf-8' && !isUtf8(bytes)) throw new Error('The body is not valid UTF-8');
    },
  });
}

function bodyOf(request: Request): unknown {
  if (request.is('*/*') === null || request.headers['content-length'] === '0')
    throw new PlankError('MALFORMED', 'There is no body: send a JSON object');
  if (request.body === undefined)
    throw new PlankError('UNSUPPORTED_MEDIA_TYPE', 'Send the body as Content-Type: application/json');
  return request.body;
}

function parse<T>(schema: z.ZodType<T>, value: unknown, unknown: string): T {
  const result = schema.safeParse(value);
  if (!result.success) throw invalid(result.error, unknown);
  return result.data;
}

function found<R>(rows: readonly R[]): R {
  const [row] = rows;
  if (!row) throw new PlankError('NOT_FOUND', 'There is no row with this key');
  return row;
}

/** `json` is sent byte for byte. */
function sendJson(response: Response, json: string): void {
  response.set('Cache-Control', 'no-cache').type('application/json').send(json);
}
