/**
 * REST over the attached tables: /api/<table> and /api/<table>/<key>.
 *
 * A row's JSON is the text that Postgres renders (Table.imageSql): the same bytes that capture stores and
 * WebSockets send. The text is passed on unchanged and never parsed. Identifiers in SQL come only from the
 * catalog, and values are always parameters.
 */
import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import express, { type Request, type RequestHandler, type Response, Router } from 'express';
import { z } from 'zod';
import { keepDigits, parseExactJson } from '#shared/exact-json.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import type { Catalog, Table } from '../catalog/catalog.ts';
import { FilterError, RowFilter } from '../filter/row-filter.ts';
import { Answers, isTruncated, setTruncated } from './answers.ts';
import { fromZod, invalidFields, PlankError } from './errors.ts';
import { keepText } from './json-source.ts';
import { fromPostgres } from './postgres-problems.ts';
import { entityTag, preconditionOf, refusePrecondition, requireCondition } from './precondition.ts';
import { RestPool } from './rest-pool.ts';
import { methodNotAllowed, named } from './routes.ts';
import { formatSegment, maxAddress, parseSegment } from './row-address.ts';
import { parseKey, readKey } from './row-key.ts';
import { rowSchemas } from './row-values.ts';
import { Rows, sqlOf } from './rows.ts';
import { readPage } from './table-page.ts';
import { keyIsAfter, Parameters } from './value-sql.ts';

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
    // every kind of malformed cursor gets the same error, below
  }
  throw invalidFields([{ path: 'cursor', message: `is not a cursor of ${table.name}` }]);
}

function parseWhere(table: Table, where: string): RowFilter {
  let json: unknown;
  try {
    json = parseExactJson(where);
  } catch (error) {
    throw invalidFields(
      [{ path: 'where', message: error instanceof RangeError ? 'is nested too deeply' : 'must be a filter as JSON' }],
      error,
    );
  }
  try {
    return RowFilter.parse(table, json);
  } catch (error) {
    if (error instanceof FilterError && error.code === 'UNREADABLE_COLUMN')
      throw new PlankError('FORBIDDEN', error.message);
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
  const answers = new Answers();
  const router = Router();

  const queriesOf = (request: Request) => connections.for(request.socket);
  const rowsOf = (request: Request) => new Rows(queriesOf(request));

  const tableOf = (request: Request): Table => {
    const [name] = parseSegment(request.path.split('/')[1]!, false);
    const table = catalog.byName(name!);
    if (!table) throw new PlankError('NOT_FOUND', `There is no table ${name!.slice(0, 100)} here`);
    return table;
  };

  const keyOf = (request: Request, table: Table): string[] => {
    // the path and not request.params.id, as a comma that belongs to a value is still percent-encoded in
    // the path
    const key = parseKey(table, request.path.split('/')[2]!);
    if (!key.ok) throw invalidFields(key.fields);
    return key.values;
  };

  const list = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const { limit, cursor, where } = parse(listQuery, request.query, 'is not a parameter of this address');
    const sql = sqlOf(table);
    const parameters = new Parameters();
    const after = cursor === undefined ? null : keyIsAfter(table, parseCursor(table, cursor), parameters);
    const filter = parseWhere(table, where ?? '{}').sql(parameters.values.length + 1);
    const conditions = after === null ? filter.text : `${after} and ${filter.text}`;
    // one row more than the limit shows whether there is another page
    const text = `select ${sql.imageAndKey} from ${sql.relation} t where ${conditions}
                  order by ${sql.keyList} limit ${limit + 1}`;
    const values = [...parameters.values, ...filter.values];
    const { rows, more } = await readPage(queriesOf(request), table.name, { text, values, limit }).catch(
      (error: unknown) => {
        throw fromPostgres(error, { table, parameters: parameters.columns, deletes: false, reads: true });
      },
    );
    if (more) {
      const next = formatCursor(rows.at(-1)!.key);
      const filtered = where === undefined ? '' : `&where=${encodeURIComponent(where)}`;
      const address = `${addressOf(request, table)}?limit=${limit}${filtered}&cursor=${next}`;
      if (next.length > maxAddress)
        throw new PlankError(
          'REFUSED',
          'The key of the last row on this page is too long for the address of the next page',
        );
      response.set('Plank-Next-Cursor', next);
      if (address.length <= maxAddress) response.set('Link', `<${address}>; rel="next"`);
    }
    setTruncated(response, rows.filter(({ row }) => isTruncated(row)).length);
    answers.sendRead(response, `[${rows.map(({ row }) => row).join(',')}]`);
  };

  const read = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const precondition = preconditionOf(request);
    const row = await rowsOf(request).read(table, key);
    if (isTruncated(row))
      throw new PlankError(
        'ROW_TOO_LARGE',
        `The row ${formatSegment(key)} of ${table.name} is larger than ${table.rowBytes} bytes`,
      );
    // express itself answers If-None-Match, with a 304
    requireCondition({ ...precondition, noneMatch: null }, row);
    answers.sendRead(response, row, entityTag(row));
  };

  const create = async (request: Request, response: Response) => {
    const table = tableOf(request);
    parse(noQuery, request.query, 'is not a parameter of this address');
    refusePrecondition(request);
    const values = parse(rowSchemas(table).create, bodyOf(request), `is not a column of ${table.name}`);
    const made = await rowsOf(request).create(table, values);
    const address = `${addressOf(request, table)}/${formatSegment(made.key)}`;
    response.status(201);
    // an address that is longer could not be requested
    if (address.length <= maxAddress) response.location(address);
    answers.sendWritten(response, made.row);
  };

  const replace = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const precondition = preconditionOf(request);
    const values = parse(rowSchemas(table).replace, bodyOf(request), `is not a column of ${table.name}`);
    const given = new Set(values.map(({ column }) => column.name));
    const reset = table.columns
      .filter(({ name, writable }) => writable && !given.has(name) && !table.keyColumns.includes(name))
      .map(({ name }) => name);
    answers.sendWritten(response, await rowsOf(request).update(table, key, values, reset, precondition));
  };

  const patch = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const precondition = preconditionOf(request);
    const values = parse(rowSchemas(table).patch, bodyOf(request), `is not a column of ${table.name}`);
    answers.sendWritten(response, await rowsOf(request).update(table, key, values, [], precondition));
  };

  const remove = async (request: Request, response: Response) => {
    const table = tableOf(request);
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    await rowsOf(request).remove(table, key, preconditionOf(request));
    response.status(204).end();
  };

  // runs before the body is read, so that a request for a table that does not exist is refused without the
  // upload
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

const addressOf = (request: Request, table: Table) => `${request.baseUrl}/${formatSegment([table.name])}`;

/** The texts of bodies that were sent in UTF-8. */
const texts = new WeakMap<IncomingMessage, string>();

function jsonBody(limit: number): RequestHandler {
  return express.json({
    limit,
    strict: false, // a body that is no object is refused later, in the same form as wrong fields
    reviver: keepDigits,
    verify: (request, _response, bytes, encoding) => {
      if (encoding !== 'utf-8') return;
      if (!isUtf8(bytes)) throw new Error('The body is not valid UTF-8');
      texts.set(request, bytes.toString());
    },
  });
}

function bodyOf(request: Request): unknown {
  if (request.is('*/*') === null || request.headers['content-length'] === '0')
    throw new PlankError('MALFORMED', 'There is no body: send a JSON object');
  if (request.body === undefined)
    throw new PlankError('UNSUPPORTED_MEDIA_TYPE', 'Send the body as Content-Type: application/json');
  const body: unknown = request.body;
  const text = texts.get(request);
  if (text !== undefined && typeof body === 'object' && body !== null) keepText(body, text);
  return body;
}

function parse<T>(schema: z.ZodType<T>, value: unknown, unknown: string): T {
  const result = schema.safeParse(value);
  if (!result.success) throw fromZod(result.error, unknown);
  return result.data;
}
