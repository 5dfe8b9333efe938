/**
 * The sample: the table `items` that the quick start, the test page and the examples use. PLANK_SAMPLE=true makes the
 * table, once for each schema "plank". If the table was dropped or detached since then, it is not made again. What must
 * stay true: Plank changes no table that it did not make. The table's comment marks it as the sample, and the migrating
 * role must own it.
 */
import { readFile } from 'node:fs/promises';
import { alone } from './migrate.ts';
import { DatabaseError } from './postgres.ts';

const file = new URL('../sql/sample/items.sql', import.meta.url);
const mark = 'The sample table of Plank.';
/** the sample's number in plank.migrations, above the numbers of all migrations */
const number = 1_000;

// Relations and types of this name in any schema. They prevent the sample, because an application's search_path decides
// which one the name "items" means.
const others = `
  select format('%s %I.%I', case when y.typtype in ('d', 'e', 'r', 'm', 'b') then 'type' else coalesce(case c.relkind
           when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'm' then 'view' when 'S' then 'sequence'
           when 'f' then 'foreign table' when 'i' then 'index' when 'I' then 'index' end, 'type') end, n.nspname, 'items') as what,
         coalesce(n.nspname = 'public' and c.relkind = 'r' and obj_description(c.oid, 'pg_class') = $1
           and pg_has_role(c.relowner, 'usage'), false) as is_ours
  from pg_namespace n
  left join pg_class c on c.relnamespace = n.oid and c.relname = 'items'
  left join pg_type y on y.typnamespace = n.oid and y.typname = 'items' and (c.oid is null or y.oid <> c.reltype)
  where (c.oid is not null or y.oid is not null)
    and n.nspname not in ('pg_catalog', 'information_schema', 'plank') and n.nspname !~ '^pg_(toast|temp_)'
  order by is_ours, n.nspname = 'public' desc, n.nspname`;

/** Makes the sample in a migrated database. If it was not made, resolves with the reason in one line. */
export function makeSample(databaseUrl: string): Promise<string | undefined> {
  return alone(databaseUrl, async (client) => {
    const made = await client.query('select from plank.migrations where number = $1', [number]);
    if (made.rowCount) return undefined;
    const found = await client.query<{ what: string; is_ours: boolean }>(others, [mark]);
    const other = found.rows.find((row) => !row.is_ours);
    if (other) return `the sample table "items" was not made: there is a ${other.what}, which is not Plank's`;
    await client.query('begin');
    try {
      await client.query(await readFile(file, 'utf8'));
      await client.query(`comment on table public.items is '${mark}'`);
      await client.query("insert into plank.migrations (number, name, checksum) values ($1, 'sample', '')", [number]);
      await client.query('commit');
      return undefined;
    } catch (error) {
      await client.query('rollback');
      if (!(error instanceof DatabaseError)) throw error;
      return `the sample table "items" was not made: ${error.message}`;
    }
  });
}
