-- Follows the DDL of attached tables: columns added, renamed or dropped; tables renamed, dropped or
-- given to another owner; partitions added; and DDL of the schemas and types that these tables use.
-- A user's DDL never fails because of Plank.
--
-- Only superusers can create event triggers. If the migrating role is not a superuser, plank.attach
-- must be called again after such DDL. Until then capture goes on working (004_capture.sql), and
-- plank.check() reports the table.

create function plank.on_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  rewritten   oid[] := nullif(current_setting('plank.rewritten', true), '')::oid[];
  is_of_table boolean := tg_tag in ('ALTER TABLE', 'CREATE TABLE');
  direct      integer[];
  indirect    integer[];
  touched     record;
begin
  if rewritten is not null then
    perform set_config('plank.rewritten', '', true);
  end if;
  -- Finds the attached tables that the command altered directly, and the attached tables that it
  -- altered through a type. There are three queries, because nearly every command concerns no
  -- attached table, and the second query takes long to plan.
  with commands as materialized (
    select d.objid, pg_partition_root(d.objid) as root, (
             -- the table's row type, if any column has that type
             select y.oid from pg_class o join pg_type y on y.oid = o.reltype
             where o.oid = d.objid and exists (
               select from pg_depend where refclassid = 'pg_type'::regclass
                                       and refobjid in (y.oid, y.typarray) and deptype = 'n')) as row_type
    from pg_event_trigger_ddl_commands() d
    where not is_of_table or d.classid = 'pg_class'::regclass and d.object_type in ('table', 'table column')
  )
  select array_agg(id) filter (where itself), array_agg(id) filter (where not itself and a_part) into direct, indirect
  from (
    select a.id, exists (select from commands d where a.relation in (d.objid, d.root)) as itself,
           case when is_of_table and not exists (select from commands d where d.row_type is not null) then false
                when is_of_table
                  then exists (select from commands d where d.row_type in (select plank.column_types(a.relation)))
                -- most tables have only built-in types and no generated columns, and these commands
                -- change nothing in such tables
                when tg_tag in ('ALTER TYPE', 'ALTER DOMAIN') then exists (
                  select from pg_attribute t
                  where t.attrelid = a.relation and t.attnum > 0 and (t.atttypid >= 16384 or t.attgenerated <> ''))
                else true end as a_part
    from plank.attached a join pg_class c on c.oid = a.relation) a;
  if indirect is not null then
    with shapes as materialized (
      select s.id, x.shape from plank.catalog s cross join lateral plank.shape(s) x(shape) where s.id = any (indirect)
    )
    select array_agg(a.id) into indirect from plank.attached a
    where a.id = any (indirect) and (a.rendering is distinct from plank.rendering(a.relation)
                                     or a.shape is distinct from (select s.shape from shapes s where s.id = a.id));
  end if;
  if direct is null and indirect is null then
    return;
  end if;
  for touched in
    select a.id, a.relation, a.id = any (direct) as itself,
           exists (select from unnest(rewritten) r where a.relation in (r, pg_partition_root(r))) as is_rewritten
    from plank.attached a where a.id = any (direct || indirect)
  loop
    begin
      -- Changes that writers have already captured must come before the event that plank.refresh
      -- writes, so the table must be locked. A command that altered the table itself has locked it
      -- already.
      if touched.itself is not true then
        perform plank.lock_table(touched.relation, 'share row exclusive', 2000);
      end if;
    exception when lock_not_available then
      raise warning
        'plank: % is being written to, so clients may keep some old rows of it; run later: select plank.attach(%)',
        touched.relation, quote_literal(touched.relation);
    end;
    begin
      perform plank.refresh(touched.id, touched.is_rewritten, tg_tag);
    exception when others then
      raise warning 'plank: could not update the capture of an altered table: %', sqlerrm;
    end;
  end loop;
exception when others then
  raise warning 'plank: could not follow this command: %', sqlerrm;
end $$;

-- Records the tables whose rows Postgres computes again, because of a column's type (reason 4) or
-- default (reason 2). Other rewrites change only where or how a table is stored.
create function plank.on_rewrite() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
begin
  if pg_event_trigger_table_rewrite_reason() & 6 > 0 then
    perform set_config('plank.rewritten',
      (coalesce(nullif(current_setting('plank.rewritten', true), ''), '{}')::oid[]
        || pg_event_trigger_table_rewrite_oid())::text, true);
  end if;
end $$;

create function plank.on_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  gone integer;
begin
  for gone in
    delete from plank.attachments t using pg_event_trigger_dropped_objects() d
    where d.classid = 'pg_class'::regclass and d.objsubid = 0
      and case when t.catalog = (select plank.this_catalog()) then t.relation = d.objid
          else t.schema_name = d.schema_name and t.table_name = d.object_name end returning t.id
  loop
    perform plank.drop_generated(gone);
    perform plank.follow_policies(gone);
    insert into plank.outbox (relation, action) values (gone, 'S');
    perform plank.ring();
  end loop;
  -- For a dropped partition, Postgres reports the partition's name but not the table that the
  -- partition was part of. So the first condition looks for a dropped trigger of Plank and a table
  -- whose partitions differ. The second condition is for a dropped type: Postgres drops the columns
  -- of that type too.
  for gone in
    with dropped as materialized (select * from pg_event_trigger_dropped_objects())
    select a.id from plank.attached a join pg_class c on c.oid = a.relation
    where c.relkind = 'p' and a.rendering is distinct from plank.rendering(a.relation) and exists (
            select from dropped d
            where d.object_type = 'trigger' and d.object_identity like 'plank\_insert on %' and not d.original)
       or tg_tag <> 'ALTER TABLE' and exists (
            select from dropped d where d.classid = 'pg_class'::regclass and d.objsubid > 0 and d.objid = a.relation)
  loop
    perform plank.refresh(gone);
  end loop;
exception when others then
  raise warning 'plank: could not follow the drop of an attached table: %', sqlerrm;
end $$;

do $$
begin
  create event trigger plank_ddl on ddl_command_end
    when tag in ('ALTER TABLE', 'CREATE TABLE', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER EXTENSION')
    execute function plank.on_ddl();
  create event trigger plank_rewrite on table_rewrite execute function plank.on_rewrite();
  create event trigger plank_drop on sql_drop execute function plank.on_drop();
exception when insufficient_privilege then
  raise notice 'plank: not a superuser, so DDL of attached tables is not followed: call plank.attach again after it';
end $$;
