-- Describes attached tables: the properties that gateways read, the triggers that a table must
-- have, and the digests that show Plank that it did not follow some DDL.
--
-- plank.check calls some of these functions for each table. So the functions that return sets have
-- no SET clauses, because Postgres inlines only functions without SET clauses into the calling
-- query. The callers have the SET clauses instead.

-- Whether the table has a trigger that calls a capture function of the attachment p_id.
create function plank.has_triggers(p_id integer, relation regclass) returns boolean language sql stable as $$
  select exists (
    select from pg_trigger where tgrelid = relation and tgfoid in (select plank.generated_functions(p_id)))
$$;

-- Why a policy cannot be used, so that it allows nothing; null: it can be used. Each name in it must
-- mean the table or the column that it meant when the policy was set. In a restored dump, where
-- columns have other numbers, the names alone decide, unless the policy could not be used before.
create function plank.policy_problem(p plank.policy) returns text language sql stable as $$
  select case when p.problem is not null and p.catalog <> (select plank.this_catalog()) then p.problem else (
    select case
        when a.id is null then format('names the table %s, which is not attached any more', u."from")
        when a.name <> u."from" then format('names the table %s, whose name is %s now', u."from", a.name)
        else format('names the column %s%s, which was dropped, renamed or excluded', u."from" || '.', u."column") end
    from plank.policy_uses u left join plank.attached a on a.id = u.used
    left join pg_attribute t on t.attrelid = a.relation and t.attname = u."column" and t.attnum > 0
      and not t.attisdropped and t.attnum <> all (a.excluded)
    where u.attachment = p.attachment and u.role = p.role
      and (a.id is null or a.name <> u."from" or t.attnum is null
           or t.attnum <> u.number and p.catalog = (select plank.this_catalog()))
    order by u.used, u."from", u."column" limit 1) end
$$;

-- All policies of a table, as plank.catalog and the event A have them.
create function plank.policies_of(p_id integer) returns json language sql stable as $$
  select coalesce(json_agg(to_jsonb(p) - '{attachment,catalog,problem}'::text[]
                           || case when x.problem is null then '{}' else jsonb_build_object('problem', x.problem) end
                           order by p.role), '[]')
  from plank.policy p cross join lateral (select plank.policy_problem(p) as problem offset 0) x
  where p.attachment = p_id
$$;

-- Everything that a gateway needs to know about attached tables, one row for each table. Several
-- tables may have the same name for clients, because names of tables in the schema public may
-- contain dots. Then only one of these tables is served: the first one whose changes are captured.
create view plank.catalog as
with attached as materialized (
  select a.*, n.nspname, c.relname, count(*) over (partition by a.name) > 1 as is_shared
  from plank.attached a
  join pg_class c on c.oid = a.relation and c.relkind in ('r', 'p') join pg_namespace n on n.oid = c.relnamespace
), served as (
  select o.*, row_number() over (
           partition by o.name order by o.is_shared and not plank.has_triggers(o.id, o.relation), o.id) as place
  from attached o
)
select s.id, s.name, s.nspname as schema, s.relname as "table", s.key_columns,
       (select json_agg(json_build_object(
          'name', t.attname, 'type', plank.type_name(t.atttypid, t.atttypmod), 'nullable', not t.attnotnull,
          'base', case when y.typnamespace = 'pg_catalog'::regnamespace then y.typname else plank.type_sql(y.oid) end,
          -- the first condition is a shortcut for most columns: built-in types without parts, and
          -- arrays of these types
          'structured', case
             when not (d.oid < 16384
                       and (d.typelem = 0 or e.oid < 16384 and e.typelem = 0 and e.typtype = 'b' and e.typdelim = ','))
               and plank.is_structured(d.oid) then plank.type_sql(d.oid) end,
          'equals', case when t.attname = any (s.key_columns)
                         then (select * from plank.key_operator(s.relation, t.attnum, 3)) end,
          'above', case when t.attname = any (s.key_columns)
                        then (select * from plank.key_operator(s.relation, t.attnum, 5)) end,
          'optional', not t.attnotnull or t.atthasdef or t.attidentity <> '',
          'writable', not (t.attname = any (s.read_only) or t.attgenerated <> '' or t.attidentity = 'a'),
          'enum', d.typtype = 'e', 'nondeterministic', coalesce(not l.collisdeterministic, false),
          'value', case when not v.is_column then v.value end, 'virtual', t.attgenerated = 'v') order by t.attnum)
        from plank.column_values(r.a, 't.') v
        join pg_attribute t on t.attrelid = s.relation and t.attnum = v.number
        join pg_type d on d.oid = t.atttypid
        join pg_type y on y.oid = case d.typtype when 'd' then plank.base_type(d.oid) else d.oid end
        left join pg_type e on e.oid = d.typelem left join pg_collation l on l.oid = t.attcollation) as columns,
       i.image as image_sql, i.partial as large_sql, plank.row_bytes() as row_bytes,
       s.catalog_digest as version,                       -- changes when a value above changes
       plank.policies_of(s.id) as policies,
       (select policies_xid::text from plank.attachments where id = s.id) as policies_version
from served s cross join lateral (
  select row(s.id, s.relation, s.name, s.key_columns, s.excluded, s.read_only, s.moved, s.shape, s.code,
             s.catalog_digest, s.rendering)::plank.attached as a) r
cross join lateral (select * from plank.row_sql(r.a, 't', 't.') offset 0) i
where s.place = 1 and s.excluded is not null and s.read_only is not null;

-- Tables with columns that were captured first and excluded later. For each table, the columns that
-- gateways may still read in images of earlier transactions, see plank.hide_former_columns.
create view plank.former as
select id, former_xid::text, former_columns, former_key from plank.attachments
where former_xid is not null and former_catalog = (select plank.this_catalog());

-- Drops all triggers that capture for an attached table, also those on other tables, such as a
-- detached partition. The triggers that the table but_of must have are not dropped.
create function plank.drop_triggers(p_id integer, but_of regclass default null) returns void language plpgsql as $$
declare
  t record;
begin
  for t in select g.tgname, g.tgrelid::regclass as on_table from pg_trigger g
           where g.tgfoid in (select plank.generated_functions(p_id)) and not exists (
             select from plank.triggers(p_id, but_of) w where w.relation = g.tgrelid and w.name = g.tgname) loop
    execute format('drop trigger %I on %s', t.tgname, t.on_table);
  end loop;
end $$;

-- The triggers that an attached table must have, with those of its partitions.
create function plank.triggers(p_id integer, p_table regclass)
returns table (relation regclass, name name, definition text) language sql stable as $$
  select p.relid::regclass, t.name::name,
         format('TRIGGER %s AFTER %s ON %s%s FOR EACH STATEMENT EXECUTE FUNCTION plank.%I(%s)',
           t.name, upper(t.op), p.relid::regclass, t.referencing, plank.capture_function(p_id, t.op),
           case when t.op = 'truncate' and p.relid = p_table then '''all''' end)
  from (select relid from pg_partition_tree(p_table) union select p_table) p
  -- foreign tables cannot have such triggers
  join pg_class c on c.oid = p.relid and c.relkind in ('r', 'p') cross join (values
    ('plank_insert', 'insert', ' REFERENCING NEW TABLE AS plank_new'),
    ('plank_update', 'update', ' REFERENCING OLD TABLE AS plank_old NEW TABLE AS plank_new'),
    ('plank_delete', 'delete', ' REFERENCING OLD TABLE AS plank_old'),
    ('plank_truncate', 'truncate', '')) t(name, op, referencing)
  order by p.relid <> p_table, p.relid, array_position('{insert,update,delete,truncate}'::text[], t.op)
$$;

-- Creates a trigger if it is missing or has another definition. Otherwise does nothing, because
-- creating a trigger waits for the table's writers. A disabled trigger stays disabled.
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

-- Returns one row: a digest of everything from which the capture of a table is generated. If the
-- digest differs from the recorded digest, Plank did not follow some DDL.
create function plank.shape(c plank.catalog) returns setof text language sql stable as $$
  select md5(concat_ws(E'\n', c.schema, c."table", c.key_columns, c.columns, c.image_sql, (
    select string_agg(distinct confdeltype::text || confupdtype::text, '') from pg_constraint
    where conrelid = t.relation and contype = 'f'), (
    select string_agg(pg_get_expr(d.adbin, d.adrelid), ',' order by d.adnum) from pg_attrdef d
    join pg_attribute on attrelid = d.adrelid and attnum = d.adnum and attgenerated <> ''
    where d.adrelid = t.relation)))
  from (select to_regclass(format('%I.%I', c.schema, c."table")) as relation) t
$$;

-- The types of a table's columns, and the types that these consist of.
create function plank.column_types(relation regclass) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
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

-- What the rows of a table and their images depend on besides the table's row in plank.catalog:
-- partitions, labels of enums, attributes of composite types, expressions of generated columns. The
-- list uses names and not numbers, as a dump carries the list to other databases.
create function plank.rendering(relation regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select array_agg(item order by item) from (
    select format('partition %s', relid::regclass) as item
    from pg_partition_tree(relation) where isleaf and relid <> relation
    union all
    select format('label %s %s', format_type(enumtypid, null), enumlabel)
    from plank.column_types(relation) t(type) join pg_enum on enumtypid = type
    union all
    select format('attribute %s %s %I %s', format_type(y.oid, null), attnum, attname, format_type(atttypid, atttypmod))
    from plank.column_types(relation) t(type) join pg_type y on y.oid = type and y.typtype = 'c'
    join pg_attribute on attrelid = y.typrelid and attnum > 0 and not attisdropped
    union all
    select format('generated %I %s', attname, pg_get_expr(adbin, adrelid))
    from pg_attribute join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attrelid = relation and attgenerated <> '' and not attisdropped) x
$$;

-- Compares two lists of plank.rendering. True if rows or their images may have changed between the
-- two. Two kinds of additions change no row: a new label of an enum, and a partition that CREATE
-- TABLE made, as it is empty.
create function plank.renders_differently(p_was text[], p_is text[], p_tag text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select exists (select unnest(p_was) except select unnest(p_is))
      or exists (select from (select unnest(p_is) as item except select unnest(p_was)) x
                 where item not like 'label %' and not (item like 'partition %' and p_tag = 'CREATE TABLE'))
$$;

-- Returns one row: a digest of the table's generated functions.
create function plank.code(p_id integer) returns setof text language sql stable as $$
  select md5(string_agg(p.proname || p.prosrc, '' order by p.proname))
  from plank.generated_functions(p_id) f join pg_proc p on p.oid = f
$$;

-- The reasons why Plank cannot follow the changes of a table, each with a statement that removes
-- the reason (null: no statement can). If Plank can follow the changes, returns no rows.
create function plank.unfit(relation regclass) returns table (problem text, repair text) language sql stable as $$
  with c as (select * from pg_class where oid = relation), tree as (
    select p.* from pg_partition_tree(relation) t join pg_class p on p.oid = t.relid union select * from c)
  select 'is not a table', null from c where relkind not in ('r', 'p')
  union all
  select 'is a temporary or system table', null from c
  where relpersistence = 't' or relnamespace in (
    select oid from pg_namespace where nspname in ('plank', 'pg_catalog', 'information_schema', 'pg_toast'))
  union all
  select format('is a partition; attach its parent %s, partitions come with it', i.inhparent::regclass),
         format('select plank.detach(%L)', relation)
  from c join pg_inherits i on i.inhrelid = c.oid where relispartition
  union all
  select format('inherits from %s, and changes that are made through %1$s are not captured', i.inhparent::regclass),
         format('alter table %s no inherit %s', relation, i.inhparent::regclass)
  from c join pg_inherits i on i.inhrelid = c.oid where not relispartition
  union all
  select format('is inherited by %s, whose rows are part of it and whose changes are not captured',
           i.inhrelid::regclass),
         format('alter table %s no inherit %s', i.inhrelid::regclass, relation)
  from c join pg_inherits i on i.inhparent = c.oid where relkind = 'r'
  union all
  select format('is unlogged%s: Postgres empties it after a crash, and no trigger fires for that',
           case when oid <> relation then ' in its partition ' || oid::regclass end),
         format('alter table %s set logged', oid::regclass)
  from tree where relpersistence = 'u' and relkind in ('r', 'p')
  union all
  select format('has the partition %s, a foreign table, whose changes cannot be captured', oid::regclass),
         format('alter table %s detach partition %s',
           (select inhparent::regclass from pg_inherits where inhrelid = oid), oid::regclass)
  from tree where relkind = 'f' and oid <> relation
  union all
  select format('belongs to the extension %I, which may change it without notice', e.extname),
         format('alter extension %I drop table %s', e.extname, relation)
  from c join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
                         and d.refclassid = 'pg_extension'::regclass
  join pg_extension e on e.oid = d.refobjid
  union all
  select 'has no primary key, so its rows cannot be told apart',
         format('alter table %s add primary key (%s)', relation, coalesce(
           (select string_agg(quote_ident(k), ', ') from plank.attached a cross join unnest(a.key_columns) k
            where a.relation = unfit.relation
            having bool_and(k in (select attname from pg_attribute where attrelid = unfit.relation))), '…'))
  from c where relkind in ('r', 'p') and plank.key_columns(unfit.relation) is null
$$;
