-- Attaching a table: what may be attached, its triggers, what is wrong with them; and keeping all of it true to DDL.

-- Takes the triggers of an attached table from wherever they are, a detached partition for one; not from but_of.
create function plank.drop_triggers(p_id integer, but_of oid[] default '{}') returns void language plpgsql as $$
declare
  t record;
begin
  for t in select tgname, tgrelid::regclass as on_table from pg_trigger
           where tgfoid in (select plank.functions(p_id)) and tgrelid <> all (but_of) loop
    execute format('drop trigger %I on %s', t.tgname, t.on_table);
  end loop;
end $$;

-- Creates a trigger that is missing, or is another: it would wait for the table's writers. One that is disabled stays so.
create function plank.put_trigger(p_id integer, p_table regclass, p_op text, p_referencing text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  definition text := format('TRIGGER %I AFTER %s ON %s%s FOR EACH STATEMENT EXECUTE FUNCTION plank.%I()',
                            'plank_' || p_op, upper(p_op), p_table, p_referencing, plank.capture_function(p_id, p_op));
  was        pg_trigger;
begin
  select * into was from pg_trigger where tgrelid = p_table and tgname = 'plank_' || p_op;
  if found and pg_get_triggerdef(was.oid) = 'CREATE ' || definition then
    return;
  end if;
  execute 'CREATE OR REPLACE ' || definition;
  if was.tgenabled <> 'O' then
    execute format('alter table %s %s trigger %I', p_table,
      case was.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, was.tgname);
  end if;
end $$;

-- Rewrites the capture functions and triggers of an attached table to what the table is now, and tells every gateway by an
-- event of action S, in the order of changes.
create function plank.refresh(p_id integer) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  a    plank.attached;
  part regclass;
begin
  update plank.attached t set name = plank.public_name(t.relation), key_columns = plank.key_columns(t.relation)
  where id = p_id and plank.key_columns(t.relation) is not null;
  select * into strict a from plank.attached where id = p_id;
  perform plank.generate(a);
  for part in select relid from pg_partition_tree(a.relation) union select a.relation loop
    perform plank.put_trigger(a.id, part, 'insert', ' REFERENCING NEW TABLE AS plank_new');
    perform plank.put_trigger(a.id, part, 'update', ' REFERENCING OLD TABLE AS plank_old NEW TABLE AS plank_new');
    perform plank.put_trigger(a.id, part, 'delete', ' REFERENCING OLD TABLE AS plank_old');
    perform plank.put_trigger(a.id, part, 'truncate', '');
  end loop;
  perform plank.drop_triggers(a.id, but_of => array(select relid from pg_partition_tree(a.relation) union select a.relation));
  insert into plank.outbox (relation, action) values (a.id, 'S');
  perform plank.ring();
end $$;

-- Attaches a table, or an attached one again with other options. A partitioned table is attached with its partitions.
--   select plank.attach('public.orders');
--   select plank.attach('public.users', exclude => '{password_hash}', read_only => '{created_at}');
-- Returns the name that clients use. Errors: not a table, no primary key, an excluded column that does not exist or is in the key.
create function plank.attach(relation regclass, exclude text[] default '{}', read_only text[] default '{}') returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  c        pg_class;
  schema   text;
  keys     text[];
  wrong    text;
  a        plank.attached;
begin
  select * into c from pg_class where oid = attach.relation;
  schema := c.relnamespace::regnamespace::text;
  if c.relkind not in ('r', 'p') then
    raise exception 'plank: % is not a table and cannot be attached', attach.relation using errcode = 'wrong_object_type';
  end if;
  if c.relpersistence = 't' or schema in ('plank', 'pg_catalog', 'information_schema') then
    raise exception 'plank: % is a temporary or system table and cannot be attached', attach.relation using errcode = 'wrong_object_type';
  end if;
  if exists (select from pg_inherits i where i.inhrelid = attach.relation and c.relispartition) then
    raise exception 'plank: % is a partition; attach its parent %, partitions come with it', attach.relation, (select i.inhparent::regclass from pg_inherits i where i.inhrelid = attach.relation)
      using errcode = 'wrong_object_type';
  end if;
  keys := plank.key_columns(attach.relation);
  if keys is null then
    raise exception 'plank: table % has no primary key, so its rows cannot be told apart', attach.relation
      using errcode = 'object_not_in_prerequisite_state', hint = 'Add one: alter table … add primary key (…)';
  end if;
  select string_agg(x, ', ') into wrong from unnest(exclude || read_only) x
  where not exists (select from pg_attribute t where t.attrelid = attach.relation and t.attname = x and t.attnum > 0 and not t.attisdropped);
  if wrong is not null then
    raise exception 'plank: table % has no column %', attach.relation, wrong using errcode = 'undefined_column';
  end if;
  if exclude && keys then
    raise exception 'plank: a column of the primary key of % cannot be excluded', attach.relation using errcode = 'invalid_parameter_value';
  end if;
  insert into plank.attached as t (relation, name, key_columns, excluded, read_only)
  values (attach.relation, plank.public_name(attach.relation), keys, coalesce(
    (select array_agg(attnum) from pg_attribute where attrelid = attach.relation and attname = any (exclude)), '{}'), attach.read_only)
  on conflict on constraint attached_relation_key do update
    set name = excluded.name, key_columns = excluded.key_columns, excluded = excluded.excluded, read_only = excluded.read_only
  returning * into a;
  perform plank.refresh(a.id);
  return a.name;
end $$;

-- Stops capturing a table. What was captured before stays readable until it is past the retention.
create function plank.detach(relation regclass) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  a plank.attached;
begin
  delete from plank.attached t where t.relation = detach.relation returning * into a;
  if a.id is null then
    raise exception 'plank: table % is not attached', detach.relation using errcode = 'undefined_object';
  end if;
  perform plank.drop_triggers(a.id);
  perform plank.drop_functions(a.id);
  insert into plank.outbox (relation, action) values (a.id, 'S');
  perform plank.ring();
end $$;

-- What is wrong with the capture of attached tables, in words; no rows when all is well.
create function plank.check() returns table (name text, problem text) language sql stable set search_path = pg_catalog, pg_temp as $$
  select a.name, format('the table was dropped; run: delete from plank.attached where id = %s', a.id)
  from plank.attached a where not exists (select from pg_class c where c.oid = a.relation)
  union all
  select a.name, format('trigger %s is missing on %s; run: select plank.attach(%L)', t.name, p.relid, a.relation)
  from plank.attached a join pg_class c on c.oid = a.relation
  cross join lateral (select relid from pg_partition_tree(a.relation) union select a.relation) p
  cross join unnest(array['plank_insert', 'plank_update', 'plank_delete', 'plank_truncate']) t(name)
  where not exists (select from pg_trigger g where g.tgrelid = p.relid and g.tgname = t.name)
  union all
  select a.name, format('trigger %s is disabled on %s; run: alter table %s enable trigger %s', g.tgname, g.tgrelid::regclass, g.tgrelid::regclass, g.tgname)
  from plank.attached a join pg_trigger g on g.tgrelid in (select relid from pg_partition_tree(a.relation) union select a.relation)
  where g.tgname like 'plank\_%' and g.tgenabled in ('D', 'R')
  union all
  select distinct a.name, format('changes of %s are captured as %s, who may not do what it takes; run: select plank.attach(%L)', a.relation, p.proowner::regrole, a.relation)
  from plank.attached a join pg_class c on c.oid = a.relation cross join plank.functions(a.id) f join pg_proc p on p.oid = f
  where not coalesce(has_schema_privilege(p.proowner, 'plank', 'usage')
                     and has_any_column_privilege(p.proowner, to_regclass(format('plank.%I', 'outbox_' || a.id)), 'insert')
                     and has_table_privilege(p.proowner, c.oid, 'select')
                     and not exists (select from plank.called() g where not has_function_privilege(p.proowner, g, 'execute')), false)
  union all
  select a.name, format('key column %s was renamed or dropped; run: select plank.attach(%L)', k, a.relation)
  from plank.attached a cross join unnest(a.key_columns) k join pg_class c on c.oid = a.relation
  where not exists (select from pg_attribute t where t.attrelid = a.relation and t.attname = k and t.attnum > 0 and not t.attisdropped)
$$;

-- Everything that a gateway must know of attached tables, a row a table.
create view plank.catalog as
select a.id, a.name, n.nspname as schema, c.relname as "table", a.key_columns,
       (select json_agg(json_build_object(
          'name', t.attname, 'type', format_type(t.atttypid, t.atttypmod), 'base', y.typname, 'nullable', not t.attnotnull,
          'optional', not t.attnotnull or t.atthasdef or t.attidentity <> '',
          'writable', not (t.attname = any (a.read_only) or t.attgenerated <> '' or t.attidentity = 'a'),
          'enum', y.typtype = 'e', 'nondeterministic', coalesce(not l.collisdeterministic, false),
          'value', case when not v.is_column then v.value end, 'virtual', t.attgenerated = 'v') order by t.attnum)
        from plank.column_values(a, 't.') v join pg_attribute t on t.attrelid = a.relation and t.attnum = v.number join pg_type y on y.oid = t.atttypid left join pg_collation l on l.oid = t.attcollation) as columns,
       plank.image_sql(a, 't') as image_sql
from plank.attached a join pg_class c on c.oid = a.relation join pg_namespace n on n.oid = c.relnamespace;

-- Follows the DDL of attached tables: columns added, renamed or dropped, tables renamed, dropped or given away, partitions added.
-- Event triggers are for superusers; where the migrating role is none, plank.attach must be called again after such DDL
-- (capture goes on meanwhile, see 003_capture.sql) and plank.check() says so. A user's DDL never fails because of Plank.

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
