-- Follows the DDL of attached tables: columns added, renamed or dropped, tables renamed, dropped or given away, partitions added; and of
-- what they are made of: schemas, types.
-- Event triggers are for superusers; where the migrating role is none, plank.attach must be called again after such DDL
-- (capture goes on meanwhile, see 003_capture.sql) and plank.check() says so. A user's DDL never fails because of Plank.

-- Waits for who has written to a table, so that what they captured comes before what is told next. Not for long: writers wait behind it.
create function plank.await_writers(relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set lock_timeout = '2s' as $$
begin
  execute format('lock table %s in share row exclusive mode', relation);
end $$;

create function plank.on_ddl() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
  set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  rewritten oid[] := nullif(current_setting('plank.rewritten', true), '')::oid[];
  touched   record;
begin
  if rewritten is not null then
    perform set_config('plank.rewritten', '', true);
  end if;
  for touched in
    select a.id, a.relation, d.itself, exists (select from unnest(rewritten) r where a.relation in (r, pg_partition_root(r))) as is_rewritten
    from plank.attached a join pg_class c on c.oid = a.relation, lateral (
      select coalesce(bool_or(a.relation = d.objid or a.relation = pg_partition_root(d.objid)), false) as itself,
             tg_tag not in ('ALTER TABLE', 'CREATE TABLE') or coalesce(bool_or(exists (
               -- only where the row type of the table is used at all
               select from pg_class o join pg_type y on y.oid = o.reltype
               where o.oid = d.objid and exists (select from pg_depend where refclassid = 'pg_type'::regclass and refobjid in (y.oid, y.typarray) and deptype = 'n')
                 and y.oid in (select plank.column_types(a.relation)))), false) as a_part
      from pg_event_trigger_ddl_commands() d where tg_tag not in ('ALTER TABLE', 'CREATE TABLE') or d.classid = 'pg_class'::regclass and d.object_type in ('table', 'table column')) d
    where d.itself or d.a_part and (a.rendering is distinct from plank.rendering(a.relation)
                                    or a.shape is distinct from (select plank.shape(s) from plank.catalog s where s.id = a.id))
  loop
    begin
      -- what changes a table itself has locked it
      if not touched.itself then
        perform plank.await_writers(touched.relation);
      end if;
    exception when lock_not_available then
      raise warning 'plank: % is being written to, so that clients may be shown of some rows what they were before; run later: select plank.attach(%)',
        touched.relation, quote_literal(touched.relation);
    end;
    begin
      perform plank.refresh(touched.id, touched.is_rewritten, tg_tag);
    exception when others then
      raise warning 'plank: could not follow this change of an attached table: %', sqlerrm;
    end;
  end loop;
exception when others then
  raise warning 'plank: could not follow this change: %', sqlerrm;
end $$;

-- Rows that are computed anew: for a column's type or default (2, 4), not for where and how a table is stored.
create function plank.on_rewrite() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
begin
  if pg_event_trigger_table_rewrite_reason() & 6 > 0 then
    perform set_config('plank.rewritten',
      (coalesce(nullif(current_setting('plank.rewritten', true), ''), '{}')::oid[] || pg_event_trigger_table_rewrite_oid())::text, true);
  end if;
end $$;

create function plank.on_drop() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
  set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  gone integer;
begin
  for gone in
    delete from plank.attachments t using pg_event_trigger_dropped_objects() d
    where d.classid = 'pg_class'::regclass and d.objsubid = 0 and case when t.catalog = plank.this_catalog() then t.relation = d.objid
          else t.schema_name = d.schema_name and t.table_name = d.object_name end returning t.id
  loop
    perform plank.drop_functions(gone);
    insert into plank.outbox (relation, action) values (gone, 'S');
    perform plank.ring();
  end loop;
  -- A dropped partition takes its rows along, and all that is left of it is its name, not whose it was. A column goes with its type.
  for gone in
    select a.id from plank.attached a join pg_class c on c.oid = a.relation
    where c.relkind = 'p' and a.rendering is distinct from plank.rendering(a.relation) and exists (
            select from pg_event_trigger_dropped_objects() d where d.object_type = 'trigger' and d.object_identity like 'plank\_insert on %' and not d.original)
       or tg_tag <> 'ALTER TABLE' and exists (
            select from pg_event_trigger_dropped_objects() d where d.classid = 'pg_class'::regclass and d.objsubid > 0 and d.objid = a.relation)
  loop
    perform plank.refresh(gone);
  end loop;
exception when others then
  raise warning 'plank: could not follow the drop of an attached table: %', sqlerrm;
end $$;

do $$
begin
  create event trigger plank_ddl on ddl_command_end when tag in ('ALTER TABLE', 'CREATE TABLE', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER EXTENSION')
    execute function plank.on_ddl();
  create event trigger plank_rewrite on table_rewrite execute function plank.on_rewrite();
  create event trigger plank_drop on sql_drop execute function plank.on_drop();
exception when insufficient_privilege then
  raise notice 'plank: not a superuser, so DDL of attached tables is not followed: call plank.attach again after it';
end $$;
