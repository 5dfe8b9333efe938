/**
 * Tests the policies of plank.allow, for the people who write them. Changes nothing.
 *
 *   DATABASE_URL=postgres://… npm run policy -- test orders --as '{"sub":"ada","role":"user"}'
 *
 * `--as`: the claims of a token; `{}` is a client without a token. Prints which policy applies, its filters as text and
 * as SQL, how many rows it admits now, and the columns. Exit status: 0, 1 if the table does not exist for the viewer,
 * 2 if the command could not run.
 */
import { anonymous, type Viewer } from '#gateway/access/viewer.ts';
import { Catalog, type Table } from '#gateway/catalog/catalog.ts';
import { ClaimMissing, claimAt, type RowFilter } from '#gateway/filter/row-filter.ts';
import { Rights, type TableRights } from '#gateway/rights/rights.ts';
import { createPool, type Pool, quoted } from '#shared/postgres/postgres.ts';
import { readFlags } from '#shared/process/cli.ts';
import { gatewaySchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';

const usage = `use "test <table> --as '{"sub":"ada","role":"user"}'"`;
const countMs = 60_000;
const print = (name: string, text: string) => process.stdout.write(`${name.padEnd(10)}${text}\n`);
const list = (names: readonly string[]) => (names.length === 0 ? 'none' : names.join(', '));

function viewerOf(text: string, roleClaim: string): Viewer {
  const claims = claimsIn(text);
  if (Object.keys(claims).length === 0) return anonymous;
  const { sub } = claims;
  if (typeof sub !== 'string' || sub === '') throw new Error('--as needs "sub", the name of the user, as a text');
  const role = roleIn(claims, roleClaim);
  if (typeof role !== 'string' || role === '') throw new Error(`--as: the role (${roleClaim}) must be a text`);
  return { user: sub, role, claims };
}

function claimsIn(text: string): Record<string, unknown> {
  try {
    const claims: unknown = JSON.parse(text);
    if (typeof claims === 'object' && claims !== null && !Array.isArray(claims)) return { ...claims };
  } catch {
    // the error below says the same of all that is no object
  }
  throw new Error(`--as must be the claims of a token as a JSON object, such as '{"sub":"ada","role":"user"}'`);
}

function roleIn(claims: Record<string, unknown>, name: string): unknown {
  try {
    return claimAt(claims, name);
  } catch (error) {
    if (error instanceof ClaimMissing) return 'authenticated';
    throw error;
  }
}

async function show(rights: TableRights, pool: Pool): Promise<void> {
  const { table, role, read } = rights;
  print('policy', `the one of the role ${role}`);
  for (const name of ['read', 'insert', 'update', 'check', 'delete'] as const) {
    const filter = rights[name];
    // `check` follows from `update`
    if (filter === null && name === 'check') continue;
    print(name, filter === null ? `nothing: the policy has no "${name}"` : filter.text);
    if (filter !== null && !filter.isEmpty) showSql(filter);
  }
  if (read !== null) print('rows', await countOf(table, read, pool));
  const writable = table.columns.filter((column) => column.writable).map(({ name }) => name);
  const mayWrite = rights.insert !== null || rights.update !== null;
  print('readable', read === null ? 'none' : list(rights.readable ?? table.columns.map(({ name }) => name)));
  print('writable', mayWrite ? list(rights.writable ?? writable) : 'none');
  for (const [column, value] of rights.presets) print('preset', `${column} = ${JSON.stringify(value)}`);
}

function showSql(filter: RowFilter): void {
  const { text, values } = filter.sql();
  const shown = values.map((value, i) => `$${i + 1} = ${JSON.stringify(value, (_key, one) => textOf(one))}`);
  print('', `${text}${shown.length === 0 ? '' : ` -- ${shown.join(', ')}`}`);
}

const textOf = (value: unknown) => (typeof value === 'bigint' ? String(value) : value);

/** How many rows the filter admits now. */
async function countOf(table: Table, read: RowFilter, pool: Pool): Promise<string> {
  const { text, values } = read.sql();
  const { rows } = await pool.query<{ admitted: string; all: string }>(
    `select count(*) filter (where ${text}) as admitted, count(*) as all
     from ${quoted(table.schema)}.${quoted(table.table)} t`,
    values,
  );
  return `${rows[0]!.admitted} of ${rows[0]!.all} may be read now`;
}

async function test(args: string[]): Promise<void> {
  const [name, ...rest] = args;
  if (name === undefined || name.startsWith('-')) throw new Error(usage);
  const { as } = readFlags({ as: { type: 'string' } }, rest);
  if (as === undefined) throw new Error(`--as is needed: ${usage}`);
  const config = readConfig(gatewaySchema.pick({ DATABASE_URL: true, AUTH_ROLE_CLAIM: true }));
  const viewer = viewerOf(as, config.AUTH_ROLE_CLAIM);
  const settings = { applicationName: 'plank policy', statementTimeoutMs: countMs, max: 1, onError: () => {} };
  const pool = createPool(config.DATABASE_URL, settings);
  try {
    const catalog = new Catalog(pool);
    await catalog.begin();
    const table = catalog.byName(name.replace(/^public\./, ''));
    if (!table) {
      const names = catalog.tables.map((one) => one.name).sort();
      throw new Error(`${name} is not attached; attached are: ${list(names)}`);
    }
    const rights = new Rights({ catalog, log: createLog('silent', 'policy', 'policy') });
    print('table', table.name);
    print('viewer', viewer.user === null ? 'anonymous, without a token' : `${viewer.user}, role ${viewer.role}`);
    const whyNot = rights.whyNot(table, viewer);
    if (whyNot !== null) {
      print('nothing', `is allowed: ${whyNot}. For this viewer, the table looks as if it did not exist.`);
      process.exitCode = 1;
    } else await show(rights.of(table, viewer)!, pool);
  } finally {
    await pool.end();
  }
}

try {
  const [command, ...args] = process.argv.slice(2);
  if (command !== 'test') throw new Error(usage);
  await test(args);
} catch (error) {
  process.stderr.write(`plank policy: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
