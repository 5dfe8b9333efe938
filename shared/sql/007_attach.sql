-- Attaching a table: what may be attached, its triggers; and keeping all of it true to DDL.

-- Functions that return sets and pin no settings become a part of the query that calls them: plank.check calls them for each table. Who
-- calls them pins settings.

-- Whether changes of the table are captured under this number.
create function plank.has_triggers(p_id integer, relation regclass) returns boolean language sql stable as $$
  select exists (select from pg_trigger where tgrelid = relation and tgfoid in (select plank.functions(p_id)))
$$;

-- Everything that a gateway must know of attached tables, a row a table. Of tables that clients call the same, one is served: the first whose
-- changes are captured. (In the schema public, names may have dots.)
create view plank.catalog as
with attached as materialized (
  select a.*, n.nspname, c.relname, count(*) over (partition by a.name) > 1 as is_shared
  from plank.attached a join pg_class c on c.oid = a.relation and c.relkind in ('r', 'p') join pg_namespace n on n.oid = c.relnamespace
), served as (
  select o.*, row_number() over (partition by o.name order by o.is_shared and not plank.has_triggers(o.id, o.relation), o.id) as place from attached o
)
select s.id, s.name, s.nspname as schema, s.relname as "table", s.key_columns,
       (select json_agg(json_build_object(
          'name', t.attname, 'type', plank.type_name(t.atttypid, t.atttypmod), 'nullable', not t.attnotnull,
          'base', case when y.typnamespace = 'pg_catalog'::regnamespace then y.typname else plank.type_sql(y.oid) end,
          -- Postgres' own types that have no parts are most, and arrays of these
          'structured', case when not (d.oid < 16384 and (d.typelem = 0 or e.oid < 16384 and e.typelem = 0 and e.typtype = 'b' and e.typdelim = ','))
                                  and plank.is_structured(d.oid) then plank.type_sql(d.oid) end,
          'equals', case when t.attname = any (s.key_columns) then (select * from plank.key_operator(s.relation, t.attnum, 3)) end,
          'above', case when t.attname = any (s.key_columns) then (select * from plank.key_operator(s.relation, t.attnum, 5)) end,
          'optional', not t.attnotnull or t.atthasdef or t.attidentity <> '',
          'writable', not (t.attname = any (s.read_only) or t.attgenerated <> '' or t.attidentity = 'a'),
          'enum', d.typtype = 'e', 'nondeterministic', coalesce(not l.collisdeterministic, false),
          'value', case when not v.is_column then v.value end, 'virtual', t.attgenerated = 'v') order by t.attnum)
        from plank.column_values(r.a, 't.') v join pg_attribute t on t.attrelid = s.relation and t.attnum = v.number
        join pg_type d on d.oid = t.atttypid join pg_type y on y.oid = case d.typtype when 'd' then plank.base_type(d.oid) else d.oid end
        left join pg_type e on e.oid = d.typelem left join pg_collation l on l.oid = t.attcollation) as columns,
       i.image as image_sql, i.partial as large_sql, plank.row_bytes() as row_bytes,
       s.told as version                                         -- changes with anything of the above
from served s cross join lateral (
  select row(s.id, s.relation, s.name, s.key_columns, s.excluded, s.read_only, s.moved, s.shape, s.code, s.told, s.rendering)::plank.attached as a) r
cross join lateral (select * from plank.row_sql(r.a, 't', 't.') offset 0) i
where s.place = 1 and s.excluded is not null and s.read_only is not null;

-- Tables of which columns were excluded after they had been captured: what gateways must not read in what is kept, see plank.hide.
create view plank.former as
select id, former_xid::text, former_columns, former_key from plank.attachments
where former_xid is not null and former_catalog = (select plank.this_catalog());

-- Takes the triggers of an attached table from wherever they are, a detached partition for one; not those that but_of is to have.
create function plank.drop_triggers(p_id integer, but_of regclass default null) returns void language plpgsql as $$
declare
  t record;
begin
  for t in select g.tgname, g.tgrelid::regclass as on_table from pg_trigger g
           where g.tgfoid in (select plank.functions(p_id)) and not exists (
             select from plank.triggers(p_id, but_of) w where w.relation = g.tgrelid and w.name = g.tgname) loop
    execute format('drop trigger %I on %s', t.tgname, t.on_table);
  end loop;
end $$;

-- The triggers that an attached table is to have, with those of its partitions.
create function plank.triggers(p_id integer, p_table regclass) returns table (relation regclass, name name, definition text) language sql stable as $$
  select p.relid::regclass, t.name::name, format('TRIGGER %s AFTER %s ON %s%s FOR EACH STATEMENT EXECUTE FUNCTION plank.%I(%s)',
           t.name, upper(t.op), p.relid::regclass, t.referencing, plank.capture_function(p_id, t.op),
           case when t.op = 'truncate' and p.relid = p_table then '''all''' end)
  from (select relid from pg_partition_tree(p_table) union select p_table) p
  -- (none can be put on foreign tables)
  join pg_class c on c.oid = p.relid and c.relkind in ('r', 'p') cross join (values
    ('plank_insert', 'insert', ' REFERENCING NEW TABLE AS plank_new'),
    ('plank_update', 'update', ' REFERENCING OLD TABLE AS plank_old NEW TABLE AS plank_new'),
    ('plank_delete', 'delete', ' REFERENCING OLD TABLE AS plank_old'),
    ('plank_truncate', 'truncate', '')) t(name, op, referencing)
  order by p.relid <> p_table, p.relid, array_position('{insert,update,delete,truncate}'::text[], t.op)
$$;

-- Creates a trigger that is missing, or is another: it would wait for the table's writers. One that is disabled stays so.
create function plank.put_trigger(p_table regclass, p_name name, p_definition text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  was pg_trigger;
begin
  select * into was from pg_trigger where tgrelid = p_table and tgname = p_name;
  if found and pg_get_triggerdef(was.oid) = 'CREATE ' || p_definition then
    return;
  end if;
  execute 'CREATE OR REPLACE ' || p_definition;
  if was.tgenabled <> 'O' then
    execute format('alter table %s %s trigger %I', p_table,
      case was.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, was.tgname);
  end if;
end $$;

-- What the capture of a table was generated from, as a digest, in one row: another one says that DDL was not followed.
create function plank.shape(c plank.catalog) returns setof text language sql stable as $$
  select md5(concat_ws(E'\n', c.schema, c."table", c.key_columns, c.columns, c.image_sql, (
    select string_agg(distinct confdeltype::text || confupdtype::text, '') from pg_constraint where conrelid = t.relation and contype = 'f'), (
    select string_agg(pg_get_expr(d.adbin, d.adrelid), ',' order by d.adnum) from pg_attrdef d
    join pg_attribute on attrelid = d.adrelid and attnum = d.adnum and attgenerated <> '' where d.adrelid = t.relation)))
  from (select to_regclass(format('%I.%I', c.schema, c."table")) as relation) t
$$;

-- The types of a table's columns, and what these are made of.
create function plank.column_types(relation regclass) returns setof oid language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  with recursive types as (
    select atttypid as type from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped
    union
    select part.type from types t join pg_type y on y.oid = t.type cross join lateral (
      select y.typelem as type union all select y.typbasetype union all
      select atttypid from pg_attribute where attrelid = y.typrelid and attnum > 0 and not attisdropped union all
      select rngsubtype from pg_range where y.oid in (rngtypid, rngmultitypid)) part
    where part.type <> 0
  )
  select type from types
$$;

-- What else the rows of a table and their images depend on, besides its row of plank.catalog: partitions, labels of enums, attributes of
-- composite types, expressions of generated columns. By names: a dump carries this.
create function plank.rendering(relation regclass) returns text[] language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select array_agg(item order by item) from (
    select format('partition %s', relid::regclass) as item from pg_partition_tree(relation) where isleaf and relid <> relation
    union all
    select format('label %s %s', format_type(enumtypid, null), enumlabel) from plank.column_types(relation) t(type) join pg_enum on enumtypid = type
    union all
    select format('attribute %s %s %I %s', format_type(y.oid, null), attnum, attname, format_type(atttypid, atttypmod))
    from plank.column_types(relation) t(type) join pg_type y on y.oid = type and y.typtype = 'c'
    join pg_attribute on attrelid = y.typrelid and attnum > 0 and not attisdropped
    union all
    select format('generated %I %s', attname, pg_get_expr(adbin, adrelid)) from pg_attribute join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attrelid = relation and attgenerated <> '' and not attisdropped) x
$$;

-- Whether rows are others, or look otherwise: not where an enum has more labels than before, or a partition was created, which is empty.
create function plank.renders_otherwise(p_was text[], p_is text[], p_tag text) returns boolean language sql immutable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select exists (select unnest(p_was) except select unnest(p_is))
      or exists (select from (select unnest(p_is) as item except select unnest(p_was)) x
                 where item not like 'label %' and not (item like 'partition %' and p_tag = 'CREATE TABLE'))
$$;

-- A digest of the generated functions; one row.
create function plank.code(p_id integer) returns setof text language sql stable as $$
  select md5(string_agg(p.proname || p.prosrc, '' order by p.proname)) from plank.functions(p_id) f join pg_proc p on p.oid = f
$$;

-- Why Plank cannot follow the changes of a table, and the statement that changes it; no rows where it can.
create function plank.unfit(relation regclass) returns table (problem text, repair text) language sql stable as $$
  with c as (select * from pg_class where oid = relation), tree as (
    select p.* from pg_partition_tree(relation) t join pg_class p on p.oid = t.relid union select * from c)
  select 'is not a table', null from c where relkind not in ('r', 'p')
  union all
  select 'is a temporary or system table', null from c
  where relpersistence = 't' or relnamespace in (select oid from pg_namespace where nspname in ('plank', 'pg_catalog', 'information_schema', 'pg_toast'))
  union all
  select format('is a partition; attach its parent %s, partitions come with it', i.inhparent::regclass), format('select plank.detach(%L)', relation)
  from c join pg_inherits i on i.inhrelid = c.oid where relispartition
  union all
  select format('inherits from %s, and what is done to its rows by that name is not captured', i.inhparent::regclass),
         format('alter table %s no inherit %s', relation, i.inhparent::regclass)
  from c join pg_inherits i on i.inhrelid = c.oid where not relispartition
  union all
  select format('is inherited by %s, whose rows are among its own and not captured', i.inhrelid::regclass),
         format('alter table %s no inherit %s', i.inhrelid::regclass, relation)
  from c join pg_inherits i on i.inhparent = c.oid where relkind = 'r'
  union all
  select format('is unlogged%s: Postgres empties it after a crash, and tells nobody', case when oid <> relation then ' in its partition ' || oid::regclass end),
         format('alter table %s set logged', oid::regclass)
  from tree where relpersistence = 'u' and relkind in ('r', 'p')
  union all
  select format('has the partition %s, a foreign table, whose changes cannot be captured', oid::regclass),
         format('alter table %s detach partition %s', (select inhparent::regclass from pg_inherits where inhrelid = oid), oid::regclass)
  from tree where relkind = 'f' and oid <> relation
  union all
  select format('belongs to the extension %I, which may change it as it likes', e.extname), format('alter extension %I drop table %s', e.extname, relation)
  from c join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass
  join pg_extension e on e.oid = d.refobjid
  union all
  select 'has no primary key, so its rows cannot be told apart', format('alter table %s add primary key (%s)', relation, coalesce(
    (select string_agg(quote_ident(k), ', ') from plank.attached a cross join unnest(a.key_columns) k where a.relation = unfit.relation
     having bool_and(k in (select attname from pg_attribute where attrelid = unfit.relation))), '…'))
  from c where relkind in ('r', 'p') and plank.key_columns(unfit.relation) is null
$$;

-- The names and numbers of columns, and the names of those that have gone.
create function plank.named(relation regclass, p_numbers smallint[], p_names text[], p_former smallint[], out names text[], out numbers smallint[])
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  with now as (select attname::text as name, attnum as number from pg_attribute where attrelid = relation and attnum = any (p_numbers))
  select coalesce(array_agg(name order by number, name), '{}'), coalesce(array_agg(number order by number, name), '{}') from (
    select * from now union all
    select distinct name, null::smallint from unnest(p_names, p_former) f(name, number)
    where name not in (select name from now) and (number is null or number not in (select number from now))) x
$$;

-- Writes down what an attached table and its columns are called in this catalog, and their numbers.
create function plank.remember(p_id integer) returns void language sql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  update plank.attachments t
  set catalog = plank.this_catalog(), relation = a.relation, schema_name = n.nspname, table_name = c.relname,
      excluded = e.names, excluded_numbers = e.numbers, read_only = r.names, read_only_numbers = r.numbers,
      seen_names = s.names, seen_numbers = s.numbers, seen_keys = array(
        select attnum from pg_attribute where attrelid = a.relation and attname = any (t.key_columns)
        union select unnest(t.seen_keys) where not a.moved)
  from plank.attached a join pg_class c on c.oid = a.relation join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (select * from plank.attachments o where o.id = p_id) o
  cross join lateral plank.named(a.relation, a.excluded, o.excluded, o.excluded_numbers) e
  cross join lateral plank.named(a.relation, (select array_agg(attnum) from pg_attribute where attrelid = a.relation and attname = any (a.read_only)),
                                 o.read_only, o.read_only_numbers) r
  cross join lateral (
    select array_agg(name) as names, array_agg(number) as numbers from (
      select attname::text as name, attnum as number from pg_attribute where attrelid = a.relation and attnum > 0 and not attisdropped
      union select name, number from unnest(o.seen_names, o.seen_numbers) x(name, number) where not a.moved) x) s
  where t.id = p_id and a.id = p_id
$$;

-- Columns that were excluded or read-only in the database where a table was attached, and are not to be found in this one.
create function plank.lost_columns(p_id integer) returns text language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select string_agg(distinct quote_ident(n.name), ', ') from plank.attachments t join plank.attached a on a.id = t.id
  cross join unnest(t.excluded || t.read_only, t.excluded_numbers || t.read_only_numbers) n(name, number)
  where t.id = p_id and a.moved and n.number is not null
    and not exists (select from pg_attribute c where c.attrelid = a.relation and c.attname = n.name and c.attnum > 0 and not c.attisdropped)
$$;

-- Rewrites the capture functions and triggers of an attached table to what the table is now, and tells every gateway by an event of action
-- S, in the order of changes, where clients see another shape; else by one of action R where rows changed, came or went without changes
-- of their own: p_rewritten says so, or plank.rendering. Where it cannot be judged what may be shown, all stays as it is.
-- (Texts that are compared must not depend on who calls: settings are pinned here and in all that compares.)
create function plank.refresh(p_id integer, p_rewritten boolean default false, p_tag text default '') returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
  set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  a    plank.attached;
  was  plank.attached;
  keys text[];
  shown text;
  t    record;
  seen record;
begin
  select * into strict a from plank.attached where id = p_id;
  was := a;
  if a.excluded is null or a.read_only is null then
    raise exception 'plank: this database is a restored dump, and % has no column % here, which was excluded or read-only', a.relation, plank.lost_columns(p_id)
      using errcode = 'undefined_column', hint = format('Say which columns are: select plank.attach(%L, exclude => …, read_only => …)', a.relation);
  end if;
  keys := plank.key_columns(a.relation);
  if exists (select from pg_attribute where attrelid = a.relation and attnum = any (a.excluded) and attname = any (keys)) then
    raise exception 'plank: a column of the primary key of % cannot be excluded', a.relation using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(quote_ident(g), ', ') into shown from unnest(plank.showing(a.relation, a.excluded)) g;
  if shown is not null then
    raise notice 'plank: generated columns of % are sent to clients, and are computed from excluded columns: %', a.relation, shown
      using hint = 'Exclude them too if that is not intended.';
  end if;
  update plank.attachments set key_columns = keys where id = p_id and keys is not null;
  perform plank.remember(p_id);
  select * into strict a from plank.attached where id = p_id;
  perform plank.generate(a);
  for t in select * from plank.triggers(a.id, a.relation) loop
    perform plank.put_trigger(t.relation, t.name, t.definition);
  end loop;
  perform plank.drop_triggers(a.id, but_of => a.relation);
  select x.shape, md5((to_jsonb(c) - 'version')::text) as told into seen from plank.catalog c cross join lateral plank.shape(c) x(shape) where c.id = p_id;
  update plank.attachments
  set shape = seen.shape, told = seen.told, code = (select * from plank.code(p_id)), rendering = plank.rendering(a.relation) where id = p_id;
  select * into strict a from plank.attached where id = p_id;
  if a.told is distinct from was.told then
    insert into plank.outbox (relation, action) values (a.id, 'S');
    perform plank.ring();
  elsif p_rewritten or plank.renders_otherwise(was.rendering, a.rendering, p_tag) then
    insert into plank.outbox (relation, action) values (a.id, 'R');
    perform plank.ring();
  end if;
end $$;

-- Attaches a table, or an attached one again. A partitioned table is attached with its partitions.
--   select plank.attach('public.orders');
--   select plank.attach('public.users', exclude => '{password_hash}', read_only => '{created_at}');
-- What is left out stays as it was set before; '{}' clears it, and a notice names the columns that are shown, or writable, from then on.
-- Returns the name that clients use. Errors: not a table, no primary key, an excluded column that does not exist or is in the key, a
-- table that could not be locked within five seconds. A notice names generated columns that are computed from excluded ones.
create function plank.attach(relation regclass, exclude text[] default null, read_only text[] default null) returns text
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
  set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  keys     text[];
  wrong    text;
  repair   text;
  was      plank.attached;
  a        plank.attached;
  is_unsure boolean;
  has_triggers boolean;
begin
  select u.problem, u.repair into wrong, repair from plank.unfit(attach.relation) u limit 1;
  if found then
    raise exception 'plank: cannot attach: % %', attach.relation, wrong
      using errcode = 'wrong_object_type', hint = case when repair is null or repair like 'select%' then '' else repair end;
  end if;
  keys := plank.key_columns(attach.relation);
  select string_agg(x, ', ') into wrong from unnest(exclude || read_only) x
  where not exists (select from pg_attribute t where t.attrelid = attach.relation and t.attname = x and t.attnum > 0 and not t.attisdropped);
  if wrong is not null then
    raise exception 'plank: table % has no column %', attach.relation, wrong using errcode = 'undefined_column';
  end if;
  if exclude && keys then
    raise exception 'plank: a column of the primary key of % cannot be excluded', attach.relation using errcode = 'invalid_parameter_value';
  end if;
  if exists (select from plank.attached o join pg_class t on t.oid = o.relation where o.relation <> attach.relation and o.name = (select plank.public_name(attach.relation))) then
    raise exception 'plank: another attached table is called % as well', plank.public_name(attach.relation) using errcode = 'duplicate_object';
  end if;
  select * into was from plank.attached o where o.relation = attach.relation;
  has_triggers := found and not exists (
    select from plank.triggers(was.id, attach.relation) w left join pg_trigger g on g.tgrelid = w.relation and g.tgname = w.name
    where g.oid is null or pg_get_triggerdef(g.oid) <> 'CREATE ' || w.definition or g.tgenabled in ('D', 'R'));
  -- Where neither triggers nor exclusions change, nobody's writes are waited for.
  if was.excluded is null or not has_triggers or not array(select name from unnest(plank.column_names(attach.relation, was.excluded)) name) @> coalesce(exclude, '{}') then
    perform plank.lock_table(attach.relation, 'share row exclusive', 5000);
    select * into was from plank.attached o where o.relation = attach.relation;
  end if;
  -- Where nothing follows DDL, or something is repaired, rows may have changed without a word.
  is_unsure := not plank.follows_ddl() or was.code is distinct from (select * from plank.code(was.id)) or not has_triggers;
  if was.id is null then
    insert into plank.attachments (catalog, relation, schema_name, table_name, key_columns)
    select plank.this_catalog(), attach.relation, n.nspname, c.relname, keys from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = attach.relation
    on conflict do nothing returning id into was.id;
    if not found then
      -- somebody else has attached it at the same time
      select * into strict was from plank.attached o where o.relation = attach.relation;
    end if;
  end if;
  update plank.attachments t set
    excluded = coalesce(attach.exclude, t.excluded),
    excluded_numbers = case when attach.exclude is null then t.excluded_numbers else array_fill(null::smallint, array[cardinality(attach.exclude)]) end,
    read_only = coalesce(attach.read_only, t.read_only),
    read_only_numbers = case when attach.read_only is null then t.read_only_numbers else array_fill(null::smallint, array[cardinality(attach.read_only)]) end
  where id = was.id;
  select * into strict a from plank.attached where id = was.id;
  if not was.excluded @> a.excluded or was.excluded is null and was.relation is not null then
    perform plank.hide(a);
  end if;
  perform plank.refresh(a.id, p_rewritten => is_unsure);
  perform plank.say_wider(a.relation, 'sent to clients', array(select unnest(was.excluded) except select unnest(a.excluded)));
  perform plank.say_wider(a.relation, 'writable over REST', array(
    select attnum from pg_attribute t where t.attrelid = a.relation and attname in (select unnest(was.read_only) except select unnest(a.read_only))));
  return a.name;
end $$;

create function plank.say_wider(relation regclass, p_what text, p_numbers smallint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
begin
  if cardinality(p_numbers) > 0 then
    raise notice 'plank: of % these columns are % from now on: %', relation, p_what,
      (select string_agg(quote_ident(name), ', ') from unnest(plank.column_names(relation, p_numbers)) name);
  end if;
end $$;

-- Keeps what was captured of columns that are excluded now from being read: for images of before, it says which members may be, by
-- what they have been called. The caller has locked the table, so that those who write later capture as plank.refresh generates it.
create function plank.hide(a plank.attached) returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  own   numeric := pg_current_xact_id()::text;
  newer numeric;
begin
  begin
    update plank.attachments t set
      former_columns = array(
        select attname::text from pg_attribute c
        where c.attrelid = a.relation and c.attnum > 0 and not c.attisdropped and c.attnum <> all (a.excluded) and not a.moved
          and (c.attname::text, c.attnum) in (select * from unnest(t.seen_names, t.seen_numbers))
          and not exists (select from unnest(t.seen_names, t.seen_numbers) s(name, number) where s.name = c.attname and s.number <> c.attnum)),
      former_key = not a.moved and not (a.excluded && t.seen_keys)
    where t.id = a.id returning xmin::text into newer;
  exception when others then
    -- The clause makes the block a subtransaction, whose id is the newest there is: those of earlier writers are below it, whatever
    -- this transaction's snapshot sees.
    raise;
  end;
  update plank.attachments t set former_catalog = plank.this_catalog(), former_xid = (own + mod(newer - mod(own, 4294967296) + 4294967296, 4294967296))::text::xid8 where t.id = a.id;
end $$;

-- Stops capturing a table. Clients are told nothing more of it, nor of what was captured before.
create function plank.detach(relation regclass) returns void language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  a plank.attached;
begin
  select * into a from plank.attached t where t.relation = detach.relation;
  if a.id is null then
    raise exception 'plank: table % is not attached', detach.relation using errcode = 'undefined_object';
  end if;
  -- (dropping its triggers takes this lock)
  perform plank.lock_table(a.relation, 'access exclusive', 5000);
  delete from plank.attachments where id = a.id;
  if cardinality(a.excluded) > 0 then
    raise notice 'plank: that columns of % were excluded is forgotten: %', a.relation, array_to_string(plank.column_names(a.relation, a.excluded), ', ');
  end if;
  perform plank.drop_triggers(a.id);
  perform plank.drop_functions(a.id);
  insert into plank.outbox (relation, action) values (a.id, 'S');
  perform plank.ring();
end $$;
