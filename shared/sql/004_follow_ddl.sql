-- Follows the DDL of attached tables: columns added, renamed or dropped, tables renamed, dropped or given away, partitions added.
-- Event triggers are for superusers; where the migrating role is none, plank.attach must be called again after such DDL
-- (capture goes on meanwhile, see 003_attach.sql) and plank.check() says so. A user's DDL never fails because of Plank.

create function plank.on_ddl() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  touched integer;
begin
  for touched in
    select distinct a.id from pg_event_trigger_ddl_commands() d
    join plank.attached a on a.relation = d.objid or a.relation = pg_partition_root(d.objid)
    where d.classid = 'pg_class'::regclass and d.object_type in ('table', 'table column')
  loop
    begin
      perform plank.refresh(touched);
    exception when others then
      raise warning 'plank: could not follow this change of an attached table: %', sqlerrm;
    end;
  end loop;
end $$;

create function plank.on_drop() returns event_trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  gone integer;
begin
  for gone in
    delete from plank.attached a using pg_event_trigger_dropped_objects() d
    where d.classid = 'pg_class'::regclass and d.objsubid = 0 and a.relation = d.objid returning a.id
  loop
    perform plank.drop_functions(gone);
    insert into plank.outbox (relation, action) values (gone, 'S');
    perform plank.ring();
  end loop;
  -- A dropped partition takes its rows along. All that is left of it is its name, not whose it was.
  insert into plank.outbox (relation, action)
  select a.id, 'S' from plank.attached a join pg_class c on c.oid = a.relation
  where c.relkind = 'p' and exists (
    select from pg_event_trigger_dropped_objects() d where d.object_type = 'trigger' and d.object_identity like 'plank\_insert on %' and not d.original);
  if found then
    perform plank.ring();
  end if;
exception when others then
  raise warning 'plank: could not follow the drop of an attached table: %', sqlerrm;
end $$;

do $$
begin
  create event trigger plank_ddl on ddl_command_end when tag in ('ALTER TABLE', 'CREATE TABLE') execute function plank.on_ddl();
  create event trigger plank_drop on sql_drop execute function plank.on_drop();
exception when insufficient_privilege then
  raise notice 'plank: not a superuser, so DDL of attached tables is not followed: call plank.attach again after it';
end $$;
