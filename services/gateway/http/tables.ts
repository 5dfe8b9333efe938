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
import type { Rights } from '../rights/rights.ts';
import { Answers, isTruncated, setTruncated } from './answers.ts';
import { fromZod, invalidFields, PlankError } from './errors.ts';
import { viewerOf } from './identity.ts';
import { keepText } from './json-source.ts';
import { fromPostgres } from './postgres-problems.ts';
import { entityTag, preconditionOf, refusePrecondition, requireCondition } from './precondition.ts';
import { RestPool } from './rest-pool.ts';
import { methodNotAllowed, named } from './routes.ts';
import { formatSegment, maxAddress, parseSegment } from './row-address.ts';
import { parseKey, readKey } from './row-key.ts';
import { Rows } from './rows.ts';
import { sentValues } from './sent-values.ts';
import { readPage } from './table-page.ts';
import { TableView } from './table-view.ts';
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

function parseWhere({ table, rights }: TableView, where: string): RowFilter {
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
    return RowFilter.parse(table, json, rights?.readable);
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
  rights: Rights;
  maxBodyBytes: number;
}

export function tablesRouter({ pool, catalog, rights, maxBodyBytes }: TablesOptions): Router {
  const connections = new RestPool(pool);
  const answers = new Answers();
  const router = Router();

  const queriesOf = (request: Request) => connections.for(request.socket);
  const rowsOf = (request: Request, view: TableView) => new Rows(queriesOf(request), view);

  const viewOf = (request: Request, response: Response): TableView => {
    const [name] = parseSegment(request.path.split('/')[1]!, false);
    return TableView.find(name!, viewerOf(response), { catalog, rights });
  };

  /** The view for a request for rows that there are. */
  const readable = (request: Request, response: Response): TableView => {
    const view = viewOf(request, response);
    view.requireReadable();
    return view;
  };

  const keyOf = (request: Request, table: Table): string[] => {
    // This reads the path and not request.params.id: in the path, a comma that belongs to a value is
    // still percent-encoded.
    const key = parseKey(table, request.path.split('/')[2]!);
    if (!key.ok) throw invalidFields(key.fields);
    return key.values;
  };

  const list = async (request: Request, response: Response) => {
    const view = readable(request, response);
    const { table } = view;
    const { limit, cursor, where } = parse(listQuery, request.query, 'is not a parameter of this address');
    const parameters = new Parameters();
    const after = cursor === undefined ? null : keyIsAfter(table, parseCursor(table, cursor), parameters);
    const filter = view.rowsOf(parseWhere(view, where ?? '{}')).sql(parameters.values.length + 1);
    const conditions = after === null ? filter.text : `${after} and ${filter.text}`;
    // one row more than the limit shows whether there is another page
    const text = `select ${view.imageAndKey} from ${view.relation} t where ${conditions}
                  order by ${view.keyList} limit ${limit + 1}`;
    const values = [...parameters.values, ...filter.values];
    const page = { text, values, limit, claims: view.claims };
    const { rows, more } = await readPage(queriesOf(request), table.name, page).catch((error: unknown) => {
      throw fromPostgres(error, { table, parameters: parameters.columns, reads: true });
    });
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
    const view = readable(request, response);
    const key = keyOf(request, view.table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const precondition = preconditionOf(request);
    const row = await rowsOf(request, view).read(key);
    if (isTruncated(row))
      throw new PlankError(
        'ROW_TOO_LARGE',
        `The row ${formatSegment(key)} of ${view.table.name} is larger than ${view.table.rowBytes} bytes`,
      );
    // express itself answers If-None-Match, with a 304
    requireCondition({ ...precondition, noneMatch: null }, row);
    answers.sendRead(response, row, entityTag(row));
  };

  const create = async (request: Request, response: Response) => {
    const view = viewOf(request, response);
    parse(noQuery, request.query, 'is not a parameter of this address');
    refusePrecondition(request);
    view.requireInsert();
    const made = await rowsOf(request, view).create(sentValues(view, 'create', bodyOf(request)));
    const address = `${addressOf(request, view.table)}/${formatSegment(made.key)}`;
    response.status(201);
    // a client could not request a longer address
    if (address.length <= maxAddress) response.location(address);
    answers.sendWritten(response, made);
  };

  const replace = async (request: Request, response: Response) => {
    const view = readable(request, response);
    const { table } = view;
    const key = keyOf(request, table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const precondition = preconditionOf(request);
    const values = sentValues(view, 'replace', bodyOf(request));
    const given = new Set(values.map(({ column }) => column.name));
    // a column that the client cannot read is not part of what it replaces
    const reset = table.columns
      .filter((column) => view.isWritable(column) && view.isReadable(column))
      .map(({ name }) => name)
      .filter((name) => !given.has(name) && !table.keyColumns.includes(name));
    answers.sendWritten(response, await rowsOf(request, view).update(key, values, reset, precondition));
  };

  const patch = async (request: Request, response: Response) => {
    const view = readable(request, response);
    const key = keyOf(request, view.table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    const precondition = preconditionOf(request);
    const values = sentValues(view, 'patch', bodyOf(request));
    answers.sendWritten(response, await rowsOf(request, view).update(key, values, [], precondition));
  };

  const remove = async (request: Request, response: Response) => {
    const view = readable(request, response);
    const key = keyOf(request, view.table);
    parse(noQuery, request.query, 'is not a parameter of this address');
    await rowsOf(request, view).remove(key, preconditionOf(request));
    response.status(204).end();
  };

  // runs before the body is read, so that a request for a table that does not exist is refused without the
  // upload
  const findTable: RequestHandler = (request, response, next) => {
    viewOf(request, response);
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
