-- Capture: what is generated for each attached table, and how its rows are rendered. 004_attach.sql generates it, and makes the triggers.
--
-- Capture runs inside other people's transactions, so a generated function never names a column in a way that could fail:
-- a column renamed or dropped behind Plank's back reads as null (a name is looked for in the row first, and then one query
-- level further out, in the "absent" row) until plank.refresh has run.
--
-- Capture also runs code of the table's owner: to_json looks for a cast of a user's type. So where a superuser attached the table, the
-- generated functions belong to the table's owner, and have his rights and no more. What he may write of plank.outbox is the view
-- plank.outbox_N, which holds changes of this table in the transaction that goes on, and nothing for other roles. A column whose type
-- belongs to somebody without the owner's rights is rendered as text, which runs no code of users. Where no superuser attached it, the
-- functions belong to the role that did, and the doctor says so. (One role for all tables' capture would need to be made in each
-- cluster, and code that runs as it could read, forge and stop what is captured of other tables.)
--
-- What was measured (32 writers of single rows, PostgreSQL 18, CPU of the backends; a write without a trigger takes 40 µs). Caches
-- are cold then, so that what a function touches counts, and not how long it takes in a loop:
--   transition tables and an empty function 8 µs; the images 13; the insert into the outbox 9, its index 5; whether it is one row 5;
--   each SET of the function 1 to 2; each condition in PL/pgSQL 1; the doorbell's lock 1.
-- Hence a function for each operation, with the SETs which its types need, and one condition behind the insert. From two rows on, old
-- and new are paired by their place and not by their keys: 9 µs a row instead of 11 in statements of 100.
-- Tried and left: triggers for each row are 15 µs cheaper for one row, no cheaper at 10 and a third dearer at 100; images as json cost
-- what text does, as jsonb 5 µs more; "limit 2" instead of looking for a second row gains 3 µs, and then rows must be taken back.

-- The doorbell, see services/listener/doorbell.ts. Holding the lock exclusively means "ring"; getting it shared means that the
-- listener polls, and that it cannot stop polling before this transaction has ended.
create function plank.ring() returns void language plpgsql as $$
begin
  if not pg_try_advisory_xact_lock_shared(1886151019, 1) then  -- 'plnk', bell
    perform pg_notify('plank', '');
  end if;
end $$;

-- The settings under which an image has the same bytes for every writer. Gateways read under the same ones.
create function plank.canonical_settings() returns text language sql immutable as $$
  select 'set timezone = ''UTC'' set datestyle = ''ISO, YMD'' set intervalstyle = ''iso_8601'' set extra_float_digits = 1 '
      || 'set bytea_output = ''hex'' set lc_monetary = ''C'''
$$;

-- Whether what is generated for a table is made anew as soon as the table changes. Else it must be right for any type.
create function plank.follows_ddl() returns boolean language sql stable as $$
  select exists (select from pg_event_trigger where evtname = 'plank_ddl' and evtenabled in ('O', 'A'))
$$;

-- Of the canonical settings those that the images of a table depend on: each costs every write. All of them where a type is none of
-- these (ranges of times, composite types, users' own), and where nothing follows a change of types.
create function plank.image_settings(a plank.attached) returns text language sql stable as $$
  with recursive column_types as (
    select atttypid as type from pg_attribute
    where attrelid = a.relation and attnum > 0 and not attisdropped and attnum <> all (a.excluded)
    union
    select case when y.typtype = 'd' then y.typbasetype else y.typelem end from column_types c join pg_type y on y.oid = c.type
    where y.typtype = 'd' or y.typcategory = 'A'
  ), settings as (
    select distinct case
      when y.typtype = 'd' or y.typcategory = 'A' or y.oid = any ('{bool,int2,int4,int8,oid,numeric,text,varchar,bpchar,name,uuid,json,jsonb,
        date,time,timestamp,bit,varbit,inet,cidr,macaddr,macaddr8,int4range,int8range,numrange}'::regtype[]) then ''
      when y.oid = 'timestamptz'::regtype then 'set timezone = ''UTC'' '
      when y.oid = any ('{float4,float8}'::regtype[]) then 'set extra_float_digits = 1 '
      when y.oid = 'interval'::regtype then 'set intervalstyle = ''iso_8601'' '
      when y.oid = 'bytea'::regtype then 'set bytea_output = ''hex'' '
      when y.oid = 'money'::regtype then 'set lc_monetary = ''C'' '
    end as setting
    from column_types c join pg_type y on y.oid = c.type
  )
  select case when bool_or(setting is null) or not plank.follows_ddl() then plank.canonical_settings() else string_agg(setting, '' order by setting) end
  from settings
$$;

-- The columns (attnum) with a type, or a part of one, of somebody without the rights of the table's owner. (Postgres' own types belong
-- to one role. So most tables are answered for by the first look, and this is asked several times for each.)
create function plank.foreign_columns(relation regclass) returns smallint[] language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (
    select from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_type y on y.oid = t.atttypid
    where t.attrelid = relation and t.attnum > 0 and not t.attisdropped and (y.oid >= 16384 or not pg_has_role(y.typowner, c.relowner, 'member')))
  then
    return '{}';
  end if;
  return (
    with recursive column_types as (
      select attnum, atttypid as type from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped
      union
      select c.attnum, part.type from column_types c join pg_type y on y.oid = c.type cross join lateral (
        select y.typelem as type union all select y.typbasetype union all
        select atttypid from pg_attribute where attrelid = y.typrelid and attnum > 0 and not attisdropped) part
      where part.type <> 0
    )
    -- of a domain, it is what it is made of that is rendered
    select coalesce(array_agg(distinct c.attnum), '{}') from column_types c join pg_type y on y.oid = c.type join pg_class t on t.oid = relation
    where y.typtype <> 'd' and not pg_has_role(y.typowner, t.relowner, 'member'));
end $$;

-- Whether whole rows can be rendered as they are: nothing is excluded, foreign or virtual, and no partition has its columns in another order.
create function plank.is_plain_layout(a plank.attached) returns boolean language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if a.excluded <> '{}' or plank.foreign_columns(a.relation) <> '{}'
     or exists (select from pg_attribute where attrelid = a.relation and attnum > 0 and not attisdropped and attgenerated = 'v') then
    return false;
  elsif (select relkind from pg_class where oid = a.relation) = 'r' then
    return true;
  end if;
  return not exists (
    select from pg_partition_tree(a.relation) p
    where (select array_agg(attname order by attnum) from pg_attribute where attrelid = p.relid and attnum > 0 and not attisdropped)
       <> (select array_agg(attname order by attnum) from pg_attribute where attrelid = a.relation and attnum > 0 and not attisdropped));
end $$;

-- SQL of a column's value as to_json is to see it.
create function plank.value_sql(p_column text, is_foreign boolean) returns text language sql stable as $$
  select case when is_foreign
    then format('case when num_nonnulls(%1$s) = 1 then format(''%%s'', %1$s) end', p_column) else p_column end
$$;

-- The columns that virtual ones are made of.
create function plank.virtual_bases(relation regclass) returns table (field bigint, name name, collating text) language sql stable as $$
  select row_number() over (order by b.attnum), b.attname,
         case when b.attcollation <> 0 then format(' collate %I.%I', n.nspname, c.collname) else '' end
  from pg_attribute b left join pg_collation c on c.oid = b.attcollation left join pg_namespace n on n.oid = c.collnamespace
  where b.attrelid = relation and b.attnum > 0 and not b.attisdropped and b.attgenerated <> 'v' and exists (
    select from pg_attribute v join pg_attrdef d on d.adrelid = v.attrelid and d.adnum = v.attnum
    join pg_depend p on p.classid = 'pg_attrdef'::regclass and p.objid = d.oid or p.classid = 'pg_class'::regclass and p.objid = v.attrelid and p.objsubid = v.attnum
    where v.attrelid = relation and v.attgenerated = 'v' and p.refclassid = 'pg_class'::regclass and p.refobjid = relation and p.refobjsubid = b.attnum)
$$;

-- The columns that images have, with SQL of their values as to_json is to see them. p_of stands before the names of columns.
-- A virtual generated column (PostgreSQL 18) is null in transition tables, and Postgres computes it only when a query names it, so that
-- its expression may fail for a row that is there. Capture and all that read call one function for it: plank.virtual_N.
create function plank.column_values(a plank.attached, p_of text) returns table (number smallint, name name, value text, is_column boolean)
language sql stable as $$
  select attnum, attname,
         case when attgenerated = 'v' then format('plank.%I(row(%s), %s::pg_catalog.text)', 'virtual_' || a.id, (
                -- what its expression names, and no more: a large value would be copied
                select string_agg(p_of || quote_ident(b.name), ', ' order by b.field) from plank.virtual_bases(a.relation) b), quote_literal(attname))
              else plank.value_sql(p_of || quote_ident(attname), attnum = any (f.columns)) end,
         attgenerated <> 'v' and attnum <> all (f.columns)
  from pg_attribute cross join (select plank.foreign_columns(a.relation) as columns offset 0) f
  where attrelid = a.relation and attnum > 0 and not attisdropped and attnum <> all (a.excluded)
$$;

-- (Re)writes plank.virtual_N(row(bases), column): a virtual column's value as JSON, null where its expression fails. Postgres admits
-- nothing but built-in functions and types there, so that whoever calls it runs nobody's code.
create function plank.generate_virtual(a plank.attached) returns void language plpgsql as $$
declare
  bases   text := (select string_agg(format('bases.f%s%s as %I', field, collating, name), ', ' order by field) from plank.virtual_bases(a.relation));
  -- (the type is said again, as casts to it that nobody wrote are not shown)
  columns text := (select string_agg(format('when %L then return (select to_json((%s)::%s) from (select %s) t);',
                     t.attname, pg_get_expr(d.adbin, d.adrelid), format_type(t.atttypid, t.atttypmod), bases), E'\n' order by t.attnum)
                   from pg_attribute t join pg_attrdef d on d.adrelid = t.attrelid and d.adnum = t.attnum
                   where t.attrelid = a.relation and t.attgenerated = 'v' and not t.attisdropped);
begin
  if columns is not null then
    execute format($f$
      create or replace function plank.%I(bases record, p_column text) returns json language plpgsql stable
      set search_path = pg_catalog, pg_temp as %L
    $f$, 'virtual_' || a.id, format($s$
      #variable_conflict use_column
      begin
        case p_column
        %s
        end case;
      exception when others then
        return null;
      end $s$, columns));
  end if;
end $$;

-- What a domain is made of; another type is its own.
create function plank.base_type(type oid) returns oid language sql stable as $$
  with recursive bases as (
    select y.oid, y.typtype, y.typbasetype from pg_type y where y.oid = type
    union all
    select y.oid, y.typtype, y.typbasetype from bases b join pg_type y on y.oid = b.typbasetype where b.typtype = 'd'
  )
  select oid from bases where typtype <> 'd'
$$;

-- How the row p_row is rendered, as SQL: its whole image; whether it may be large, and the partial image of one that is, else null (see
-- 000_bound.sql), both null where no column of the table can be large; and its image, whole or partial. p_of stands before the names of
-- its columns. Whether it may be is said by sizes that are at hand: as JSON a text takes six times its bytes at most, and other types 256
-- times what is stored of them, compressed (more only where nearly all of it are escapes). A numeric takes up to 131,000 bytes,
-- and 4 to 12 of what it is in: of such types only what is small and not compressed is not large.
create function plank.row_sql(a plank.attached, p_row text, p_of text, out whole text, out suspect text, out partial text, out image text)
-- (plpgsql keeps the plan, which takes longer than all else)
language plpgsql stable as $$
#variable_conflict use_column
begin
  with columns as (
    select c.*, t.attname = any (a.key_columns) as is_key, case
      when y.typlen <> -1 or plank.is_narrow(b.oid, t.atttypmod) then 'narrow'
      when t.attgenerated <> 'v' and b.oid = any ('{text,varchar,bytea}'::regtype[]) then 'text'
      when plank.holds_numeric(b.oid) then 'numeric'
      else 'other' end as kind
    from plank.column_values(a, p_of) c join pg_attribute t on t.attrelid = a.relation and t.attnum = c.number
    join pg_type y on y.oid = t.atttypid
    cross join lateral (select case when y.typtype = 'd' then plank.base_type(y.oid) else y.oid end as oid offset 0) b
  ), kinds as (
    select kind, case kind
      when 'text' then format('greatest(%s) > plank.row_bytes() / %s', string_agg(format('plank.raw_size(%s)', value), ', ' order by number), 12 * count(*))
      when 'numeric' then string_agg(format('pg_catalog.pg_column_size(%1$s) > plank.row_bytes() / %2$s or pg_catalog.pg_column_compression(%1$s) is not null',
        value, 4096), ' or ' order by number)
      when 'other' then format('greatest(%s) > plank.row_bytes() / %s', string_agg(format('pg_catalog.pg_column_size(%s)', value), ', ' order by number), 512 * count(*))
      end as suspect
    from columns where kind <> 'narrow' group by kind
  )
  select p.whole, k.suspect, format('case when %s then plank.partial_image(%s) end', k.suspect, p.parts),
         -- (what was rendered to see how large it is need not be rendered again)
         format('coalesce(case when %s then plank.partial_image(%s, true) end, %s)', k.suspect, p.parts, p.whole)
  into whole, suspect, partial, image
  from (
    select case when plank.is_plain_layout(a) then format('pg_catalog.to_json(%s.*)::pg_catalog.text', p_row) else
             format('(select pg_catalog.to_json(image.*)::pg_catalog.text from (select %s) image)',
               string_agg(value || ' as ' || quote_ident(name), ', ' order by number)) end as whole,
           format('array[%s], %L::pg_catalog.text[], %L::pg_catalog.bool[]',
             string_agg(format(case kind when 'text' then 'plank.rendered(%s)' else 'plank.rendered_any(%s)' end, value), ', ' order by number),
             array_agg(to_json(name)::text order by number), array_agg(is_key order by number)) as parts
    from columns) p
  cross join (select string_agg(suspect, ' or ' order by kind desc) as suspect from kinds) k;
  if suspect is null then
    partial := null;
    image := whole;
  end if;
end $$;

create function plank.image_sql(a plank.attached, p_row text) returns text language sql stable as $$
  select image from plank.row_sql(a, p_row, p_row || '.')
$$;

-- SQL that renders the row p_row's key as text. p_of stands before the names of its columns.
create function plank.key_sql(a plank.attached, p_row text, p_of text default null) returns text language sql stable as $$
  select format(case when cardinality(a.key_columns) > 1 then '(select pg_catalog.to_json(k.*)::pg_catalog.text from (select %s) k)'
                     -- the same bytes for less
                     when bool_and(atttypid = any ('{int2,int4,int8}'::regtype[])) and plank.follows_ddl() then '%s::pg_catalog.text'
                     else 'pg_catalog.to_json(%s)::pg_catalog.text' end,
                string_agg(plank.value_sql(x.value, attnum = any (f.columns)) || case when cardinality(a.key_columns) = 1 then '' else ' as ' || quote_ident(c) end, ', ' order by n))
  from unnest(a.key_columns) with ordinality k(c, n) cross join lateral (select coalesce(p_of, p_row || '.') || quote_ident(c) as value) x
  cross join (select plank.foreign_columns(a.relation) as columns offset 0) f
  left join pg_attribute on attrelid = a.relation and attname = c
$$;

create function plank.key_columns(relation regclass) returns text[] language sql stable as $$
  select array_agg(t.attname::text order by array_position(i.indkey::int2[], t.attnum))
  from pg_index i join pg_attribute t on t.attrelid = i.indrelid and t.attnum = any (i.indkey)
  where i.indrelid = relation and i.indisprimary
$$;

-- The name of a type under any search_path. It has no modifier, so that a cast to it cuts nothing.
create function plank.type_sql(type oid) returns text language sql stable as $$
  select format('%I.%I', n.nspname, y.typname) from pg_type y join pg_namespace n on n.oid = y.typnamespace where y.oid = type
$$;

-- A type as Postgres prints it, with its schema unless it is Postgres' own: the name of another type is none of those.
create function plank.type_name(type oid, modifier integer) returns text language sql stable set search_path = pg_catalog, pg_temp as $$
  select format_type(type, modifier)
$$;

-- An operator of a column's primary key, by its strategy (3 is "=", 5 is ">"), whatever search_path would find: the "=" of citext, where
-- its schema is on no path, is that of text. No row where the column is in no primary key.
create function plank.key_operator(relation regclass, attnum smallint, strategy integer) returns setof text language sql stable as $$
  select format('operator(%I.%s)', n.nspname, o.oprname)
  from pg_index i
  join pg_opclass c on c.oid = i.indclass[array_position(i.indkey::int2[], key_operator.attnum)]
  join pg_amop m on m.amopfamily = c.opcfamily and m.amopstrategy = strategy and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
  join pg_operator o on o.oid = m.amopopr join pg_namespace n on n.oid = o.oprnamespace
  where i.indrelid = relation and i.indisprimary
$$;

-- Whether the JSON of a type is neither its text nor a number: it has parts, or a cast to json of its own.
create function plank.is_structured(type oid) returns boolean language sql stable as $$
  -- (not deeper: an element that is a domain or an array is a part that counts, and to_json does not look into what is no true array)
  select y.typtype = 'c'
      or (e.oid is not null and (y.oid <> type or e.typtype in ('c', 'd') or e.typsubscript = 'array_subscript_handler'::regproc
                                 or e.typnamespace <> 'pg_catalog'::regnamespace or e.typdelim <> ','))
      or exists (select from pg_cast k where k.castsource in (y.oid, e.oid) and k.castsource >= 16384 and k.casttarget = 'json'::regtype and k.castmethod = 'f')
  from pg_type y left join pg_type e on e.oid = y.typelem and y.typsubscript = 'array_subscript_handler'::regproc
  where y.oid = plank.base_type(type)
$$;

-- SQL that finds the row t of a key, which is $1, as text. It checks no domain. Where JSON is not the text of the type, JSON is compared.
create function plank.key_match(a plank.attached) returns text language sql stable as $$
  select string_agg(case
    when y.typtype <> 'e' and attnum = any (f.columns) then format('format(''%%s'', t.%I) = %s', attname, x.value)
    -- (not of somebody else's type: to_json would run a cast of his)
    when attnum <> all (f.columns) and (y.typcategory = 'A' or y.oid = 'jsonb'::regtype or plank.is_structured(y.oid)) then format('to_json(t.%I)::text = (%s)::text', attname, x.json)
    else format('t.%I %s (%s)::%s', attname, coalesce((select * from plank.key_operator(a.relation, attnum, 3)), '='), x.value, plank.type_sql(y.oid)) end, ' and ')
  from pg_attribute t join pg_type y on y.oid = plank.base_type(t.atttypid)
  cross join lateral (select case when cardinality(a.key_columns) = 1 then '$1::json' else format('$1::json -> %L', attname) end as json,
                             case when cardinality(a.key_columns) = 1 then '$1::json #>> ''{}''' else format('$1::json ->> %L', attname) end as value) x
  cross join (select plank.foreign_columns(a.relation) as columns offset 0) f
  where attrelid = a.relation and attname = any (a.key_columns)
$$;

-- SQL of the changes where keys have changed: rows are paired by their keys.
create function plank.by_key_sql(p_id integer, p_old text, p_new text) returns text language sql immutable as $$
  select format($s$
        select %1$s as relation, case when o.image is null then 'I'::"char" when n.image is null then 'D' else 'U' end as action,
               coalesce(n.key, o.key) as key, o.image as old, n.image as new
        from (%2$s) o full join (%3$s) n on n.key collate "C" = o.key collate "C"
        order by n.image is not null$s$, p_id, p_old, p_new)
$$;

-- The same where a row is in each table more than once.
create function plank.twice_sql(p_id integer, p_old text, p_new text) returns text language sql immutable as $$
  select format($s$
          with o as (select *, row_number() over () as step from (%2$s) o),
               n as (select *, row_number() over () as step from (%3$s) n),
               steps as (select step, o.key as old_key, o.image as was, n.key as new_key, n.image as became,
                                o.image is not null and n.image is not null and o.key is not distinct from n.key as stays
                         from o full join n using (step))
          select %1$s, s.action, s.key, s.was, s.became from (
            select step, 1 as part, 'U'::"char" as action, new_key as key, was, became from steps where stays
            union all
            select step, 2, 'I', new_key, null, became from steps where became is not null and not stays
            union all
            -- keys may shift: what was there before the statement makes room first
            select step, case when exists (select from n where n.step < s.step and n.key = s.old_key and n.image::text = s.was::text) then 1 else 0 end,
                   'D', old_key, was, null from steps s where was is not null and not stays
          ) s order by part > 0, step, part$s$, p_id, p_old, p_new)
$$;

-- (Re)writes the capture functions of one attached table, plank.capture_N_insert() and so on, and plank.current_N(key).
create function plank.generate(a plank.attached) returns void language plpgsql as $$
declare
  r record := plank.row_sql(a, 'r', '');
  key text := plank.key_sql(a, 'r', '');
  -- of the columns that are named: of all, or where rows are rendered as they are and cannot be large, of the key, also where it is gone
  absent text := (select string_agg(format('null::text as %I', name), ', ') from (
                  select unnest(a.key_columns) as name union
                  select attname from pg_attribute where attrelid = a.relation and attnum > 0 and not attisdropped
                  and (not plank.is_plain_layout(a) or r.suspect is not null)) c);
  rows   text := 'select i.* from (select %s) absent cross join lateral (select %s as key, %s as image from plank_%s r%s) i';
  -- ("offset 0": a whole row that is taken through a join to be rendered behind it is read, however large)
  old_rows text := format(rows, absent, key, r.image, 'old', ' offset 0');
  new_rows text := format(rows, absent, key, r.image, 'new', ' offset 0');
  -- To prepare what a large row needs costs each statement 3 to 7 µs. So first those that may be large are left out, where there is
  -- one it is remembered (in front of what nested statements remember, which is looked at anyway), and all is done over.
  suspect text := r.suspect;
  but_large text := case when suspect is null then '' else format($s$ where (%s) is not true$s$, suspect) end;
  and_tell  text := case when suspect is null then '' else format($s$ where case when %s then
        set_config('plank.nested_%2$s', '!' || ltrim(coalesce(current_setting('plank.nested_%2$s', true), ''), '!'), true) is null else true end$s$,
        suspect, a.id) end;
  small_old text := format(rows, absent, key, r.whole, 'old', but_large);
  small_new text := format(rows, absent, key, r.whole, 'new', but_large);
  told_old  text := format(rows, absent, key, r.whole, 'old', and_tell);
  told_new  text := format(rows, absent, key, r.whole, 'new', and_tell);
  start_over text := case when suspect is null then '' else format($s$
      if current_setting('plank.nested_%1$s', true) ^@ '!' then
        perform set_config('plank.nested_%1$s', ltrim(current_setting('plank.nested_%1$s'), '!'), true);
        delete from plank.outbox_%1$s where wrote > 0 and id in (select id from plank.outbox_%1$s order by id desc limit wrote);$s$, a.id) end;
  -- Only where a cascade can delete a row which another of the same statement has updated.
  cascades boolean := exists (select from pg_constraint where conrelid = a.relation and contype = 'f' and confdeltype = 'c')
                  and exists (select from pg_constraint where conrelid = a.relation and contype = 'f' and (confdeltype in ('n', 'd') or confupdtype in ('c', 'n', 'd')));
  after_update text := case when cascades then format($s$
      if current_setting('plank.deleted_%1$s', true) <> '' then
        perform plank.rechain_%1$s(current_setting('plank.deleted_%1$s')::bigint, 0, null), set_config('plank.deleted_%1$s', '', true);
      end if;$s$, a.id) else '' end;
  before_delete text := case when cascades then format($s$
      perform set_config('plank.deleted_%1$s', plank.last_id()::text, true);$s$, a.id) else '' end;
  -- Two rows may have one key until the transaction ends. What that does to the order can be told from when something has both come and gone.
  is_deferrable boolean := exists (select from pg_index where indrelid = a.relation and indisprimary and not indimmediate);
  late   text := case when is_deferrable then format($s$
        if tg_op = 'INSERT' then
          perform set_config('plank.came_%1$s', 'yes', true);
        elsif tg_op = 'DELETE' then
          perform set_config('plank.gone_%1$s', 'yes', true);
        elsif moved then
          perform set_config('plank.came_%1$s', 'yes', true), set_config('plank.gone_%1$s', 'yes', true);
        end if;
        if current_setting('plank.came_%1$s', true) <> '' and current_setting('plank.gone_%1$s', true) <> '' then
          tids := plank.rechain_%1$s(0, coalesce(mark, plank.mark(wrote)),
                                     case when mark is not null then nullif(nullif(current_setting('plank.tids_%1$s', true), ''), 'many')::tid[] end, true);
          if tids is not null and mark is not null then
            perform set_config('plank.tids_%1$s', tids::text, true);
          end if;
        end if;$s$, a.id) else '' end;
  -- True where something was captured and nothing is left to do: what nearly every write ends with. One expression, as each costs
  -- as much as a look into an index. The lock is the doorbell's.
  done   text := format($s$found and pg_trigger_depth() = 1 and coalesce(current_setting('plank.nested_%1$s', true), '') = ''
         and pg_try_advisory_xact_lock_shared(1886151019, 1)$s$, a.id) || case when is_deferrable then ' and false' else '' end;
  finish text := format($s$
      if wrote > 0 then
        if pg_trigger_depth() > 1 or current_setting('plank.nested_%1$s', true) <> '' then
          perform plank.settle(%1$s, pg_trigger_depth(), tg_op, wrote);
        end if;%2$s
        perform plank.ring();
      end if;
      return null;$s$, a.id, late);
  -- The view costs 2 to 3 µs, so not for who may write all of the outbox. (Who gets what is his by "reassign owned" gets both.)
  target text := case when plank.captured_as(a.relation) = (select pg_get_userbyid(relowner) from pg_class where oid = 'plank.outbox'::regclass)
                 then 'outbox' else 'outbox_' || a.id end;
  -- A serializable transaction reads nothing of the outbox by an index (002_settle.sql), so it keeps the places of what it writes.
  place  text := case target when 'outbox' then 'ctid' else 'tid' end;
  writes text := format($s$
        with written as (insert into plank.%I (relation, action, key, old, new) %%s returning %s as at)
        select count(*), array_agg(at) into wrote, tids from written;$s$, target, place);
  -- each old row and the new one that it became
  steps  text := format('(select *, row_number() over () as step from (%s) o) o full join (select *, row_number() over () as step from (%s) n) n using (step)', old_rows, new_rows);
  serializable text;
  op     text;
  body   text;
begin
  perform plank.generate_virtual(a);
  foreach op in array array['insert', 'update', 'delete', 'truncate'] loop
    body := case op
    when 'insert' then format($s$
      insert into plank.%4$I (relation, action, key, new)
      select %1$s, 'I', n.key, n.image from (%2$s) n;
      if %3$s then
        return null;
      end if;
      get diagnostics wrote = row_count;$s$, a.id, told_new, done, target)
      || case when suspect is null then '' else start_over || format($s$
        insert into plank.%3$I (relation, action, key, new)
        select %1$s, 'I', n.key, n.image from (%2$s) n;
        get diagnostics wrote = row_count;
      end if;$s$, a.id, new_rows, target) end
    when 'update' then format($s$
      -- What is by far the most frequent, one small row that keeps its key, needs no join of all with all. (A comparison that is
      -- more than "=" keeps the planner from hashing or sorting for it.)
      insert into plank.%6$I (relation, action, key, old, new)
      select %1$s, 'U', n.key, o.image, n.image from (%9$s) o cross join (%10$s) n
      where not exists (select from plank_old offset 1) and (n.key collate "C" = o.key collate "C") is true;
      if %5$s then
        return null;
      end if;
      get diagnostics wrote = row_count;
      if wrote = 0 then
        -- The tables hold the steps in the order in which they were made, so the n-th old row became the n-th new one.
        -- (A full join whose condition the planner cannot turn into an inner one's: a plan that was kept from a statement of few
        -- rows would loop, and make every image anew for each row of the other side.)
        insert into plank.%6$I (relation, action, key, old, new)
        select %1$s, 'U', n.key, o.image, n.image
        from (select *, row_number() over () as step from (%2$s) o) o full join (select *, row_number() over () as step from (%3$s) n) n using (step)
        where coalesce(n.key collate "C" = o.key collate "C", false)
        order by step;
        get diagnostics wrote = row_count;
      end if;
      -- Else keys have changed, or a row has gone elsewhere.
      if wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new) then
        moved := true;
        delete from plank.outbox_%1$s where wrote > 0 and id in (select id from plank.outbox_%1$s order by id desc limit wrote);
        insert into plank.%6$I (relation, action, key, old, new)
        %7$s;
        get diagnostics wrote = row_count;
        -- Two cascades of one statement (on delete set null, on update cascade) can change one row twice. It is then twice in
        -- each table, and the join has mixed up its images. Only where changes are not as many as rows can that be.
        if wrote > 1 and (wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new)) and (
             exists (select from (%2$s) o group by o.key having count(*) > 1) or
             exists (select from (%3$s) n group by n.key having count(*) > 1)) then
          delete from plank.outbox_%1$s where id in (select id from plank.outbox_%1$s order by id desc limit wrote);
          insert into plank.%6$I (relation, action, key, old, new)
          %8$s;
          get diagnostics wrote = row_count;
        end if;
      end if;%4$s
      $s$, a.id, old_rows, new_rows, after_update, case when cascades then 'false' else done end, target,
      plank.by_key_sql(a.id, old_rows, new_rows), plank.twice_sql(a.id, old_rows, new_rows), small_old, small_new)
    when 'delete' then format($s$%4$s
      insert into plank.%5$I (relation, action, key, old)
      select %1$s, 'D', o.key, o.image from (%2$s) o;
      if %3$s then
        return null;
      end if;
      get diagnostics wrote = row_count;$s$, a.id, told_old, done, before_delete, target)
      || case when suspect is null then '' else start_over || format($s$
        insert into plank.%3$I (relation, action, key, old)
        select %1$s, 'D', o.key, o.image from (%2$s) o;
        get diagnostics wrote = row_count;
      end if;$s$, a.id, old_rows, target) end
    else format($s$
      insert into plank.%2$I (relation, action)
      -- The trigger's argument says that this is the whole table, and no partition. With the whole table its partitions are truncated,
      -- of which nothing is left to tell.
      select %1$s, case when tg_nargs = 1 then 'T'::"char" else 'R' end
      where tg_nargs = 1 or not exists (
        select from (select action from plank.outbox_%1$s order by id desc limit 1) l where l.action in ('T', 'R'));
      get diagnostics wrote = row_count;$s$, a.id, target)
    end;
    serializable := case op
    when 'insert' then format(writes, format($s$select %s, 'I', n.key, null, n.image from (%s) n$s$, a.id, new_rows))
    when 'delete' then before_delete || case when cascades and not is_deferrable then format($s$
        if pg_trigger_depth() = 1 then
          perform set_config('plank.tids_%s', '', true);
        end if;$s$, a.id) else '' end
      || format(writes, format($s$select %s, 'D', o.key, o.image, null from (%s) o$s$, a.id, old_rows))
    when 'truncate' then format(writes, format($s$select %1$s, case when tg_nargs = 1 then 'T'::"char" else 'R' end, null, null, null
          where tg_nargs = 1 or current_setting('plank.truncated_%1$s', true) is distinct from mark::text$s$, a.id))
      || format($s$
        perform set_config('plank.truncated_%s', plank.last_id()::text, true);$s$, a.id)
    else format(writes, format($s$
          select %1$s, 'U', n.key, o.image, n.image from %2$s
          where not exists (select from %2$s where (n.key collate "C" = o.key collate "C") is not true)
          order by step$s$, a.id, steps))
      || format($s$
        moved := wrote = 0;
        if wrote = 0 and (exists (select from (%1$s) o group by o.key having count(*) > 1) or exists (select from (%2$s) n group by n.key having count(*) > 1)) then$s$,
        old_rows, new_rows)
      || format(writes, plank.twice_sql(a.id, old_rows, new_rows)) || '
        elsif wrote = 0 then'
      || format(writes, plank.by_key_sql(a.id, old_rows, new_rows)) || '
        end if;'
    end;
    body := format($s$
      if current_setting('transaction_isolation') = 'serializable' then
        mark := plank.last_id();%s
        if wrote > 0 then
          if pg_trigger_depth() > 1 or current_setting('plank.nested_%s', true) <> '' then
            perform plank.settle(%2$s, pg_trigger_depth(), tg_op, wrote, mark, tids);%s
          end if;%s
          perform plank.ring();
        end if;%s
        return null;
      end if;$s$, serializable, a.id,
      case when cascades or is_deferrable then format($s$
          else
            perform plank.keep_tids(%s, tids);$s$, a.id) else '' end,
      late,
      case when cascades and op = 'update' then format($s$
        if current_setting('plank.deleted_%1$s', true) <> '' then
          tids := plank.rechain_%1$s(current_setting('plank.deleted_%1$s')::bigint, 0, nullif(nullif(current_setting('plank.tids_%1$s', true), ''), 'many')::tid[]);
          perform set_config('plank.deleted_%1$s', '', true);
          if tids is not null then
            perform set_config('plank.tids_%1$s', tids::text, true);
          end if;
        end if;$s$, a.id) else '' end) || body;
    -- as literals: a column may be called "$body$; …", and whoever may alter the table must not write what follows it
    execute format($f$
      create or replace function plank.%I() returns trigger language plpgsql security definer
      set search_path = pg_catalog, pg_temp %s as %L
    $f$, plank.capture_function(a.id, op), plank.image_settings(a), format($s$
      #variable_conflict use_column
      declare
        wrote bigint;
        mark  bigint;
        tids  tid[];
        moved boolean;
      begin%s%s
      end $s$, body, finish));
  end loop;

  execute format($f$
    create or replace function plank.%I(text) returns text[] language sql stable security definer
    set search_path = pg_catalog, pg_temp %s as %L
  $f$, 'current_' || a.id, plank.canonical_settings(), case when (
      select count(*) from pg_attribute where attrelid = a.relation and attname = any (a.key_columns)) < cardinality(a.key_columns) then 'select ''{}''::text[]'
    -- keys that are equal ("a" and "A" of citext, 1.0 and 1.00) are different ones to clients
    else format('select array(select %s from %s t where %s and (%s) collate "C" = $1 limit 2)',
      plank.image_sql(a, 't'), a.relation, plank.key_match(a), plank.key_sql(a, 't')) end);
  perform plank.generate_rechain(a.id);
  perform plank.hand_over(a);
end $$;

-- The generated functions of a table. (By names and hence by an index: a pattern is matched with those of every table.)
create function plank.functions(p_id integer) returns setof regprocedure language sql stable as $$
  select oid::regprocedure from pg_proc where pronamespace = 'plank'::regnamespace and proname = any (array[
    'capture_' || p_id || '_insert', 'capture_' || p_id || '_update', 'capture_' || p_id || '_delete', 'capture_' || p_id || '_truncate',
    'rechain_' || p_id, 'current_' || p_id]::name[])
$$;

-- Whether the current role is the one that a table is captured as.
create function plank.captures(p_id integer) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (select from pg_proc where oid in (select plank.functions(p_id)) and proowner::regrole::text = quote_ident(current_user))
$$;

-- What generated functions call. Whoever they belong to may, also where a database grants new functions to nobody.
create function plank.called() returns setof regprocedure language sql stable as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'plank'::regnamespace and (proname in ('ring', 'settle', 'path', 'path_starts', 'mark', 'last_id', 'keep_tids', 'captures', 'functions',
    'row_bytes', 'raw_size', 'rendered', 'rendered_any', 'partial_image') or proname like 'virtual\_%')
$$;

-- The role that a table is to be captured as: its owner, or who calls this where that is no superuser.
create function plank.captured_as(relation regclass) returns name language sql stable as $$
  select case when r.rolsuper then pg_get_userbyid(c.relowner) else current_user end
  from pg_class c cross join pg_roles r where c.oid = relation and r.rolname = current_user
$$;

-- Gives the generated functions to the role that the table is captured as, with what they may write.
create function plank.hand_over(a plank.attached) returns void language plpgsql as $$
declare
  is_superuser boolean := (select rolsuper from pg_roles where rolname = current_user);
  own_changes  text := format('plank.%I', 'outbox_' || a.id);
  captured_as  name := plank.captured_as(a.relation);
  f            regprocedure;
  grantee      regrole;
begin
  for f in select plank.functions(a.id) loop
    execute format('revoke all on function %s from public', f);
    -- who was let in by a former owner, or by default privileges, would run code of his with the rights of the next
    for grantee in select distinct x.grantee::regrole from pg_proc p cross join aclexplode(p.proacl) x
                   where p.oid = f and x.grantee not in (0, p.proowner) loop
      execute format('revoke all on function %s from %s cascade', f, grantee);
    end loop;
    if is_superuser then
      execute format('alter function %s owner to %I', f, captured_as);
    end if;
  end loop;
  -- Made anew only for another role: it would wait for writers. The name is a shortcut; "reassign owned" gives the functions away, or
  -- the role is renamed, and nothing tells of that. Then it is asked, once for each statement, and not for each row.
  if to_regclass(own_changes) is null or position(format('= %L::name', captured_as) in pg_get_viewdef(to_regclass(own_changes))) = 0 then
    execute format($v$
      create or replace view %1$s with (security_barrier) as select *, ctid as tid from plank.outbox
      where relation = %2$s and xid = pg_current_xact_id() and action = any ('{I,U,D,T,S,R}'::"char"[])
        and (current_user = %3$L::name or (select plank.captures(%2$s))) with check option
    $v$, own_changes, a.id, captured_as);
    if is_superuser then
      execute format('alter view %s owner to %s', own_changes, (select relowner::regrole from pg_class where oid = 'plank.outbox'::regclass));
    end if;
  end if;
  -- not each time, as it would be in the way of others who attach; a dump may have been restored without what was granted
  if not has_any_column_privilege('public', own_changes, 'insert') then
    execute format('grant select, insert (relation, action, key, old, new), update (id), delete on %s to public', own_changes);
  end if;
  if not has_schema_privilege('public', 'plank', 'usage') then
    grant usage on schema plank to public;
    grant select on sequence plank.outbox_id_seq to public;
  end if;
  for f in select c from plank.called() c where not has_function_privilege('public', c, 'execute') loop
    execute format('grant execute on function %s to public', f);
  end loop;
end $$;

-- The name of a capture function.
create function plank.capture_function(p_id integer, p_op text) returns text language sql immutable as $$
  select format('capture_%s_%s', p_id, p_op)
$$;

-- Drops what was generated for a table that is attached no more, and has no triggers.
create function plank.drop_functions(p_id integer) returns void language plpgsql as $$
declare
  f regprocedure;
begin
  for f in select plank.functions(p_id) loop
    execute format('drop function %s', f);
  end loop;
  if to_regprocedure(format('plank.virtual_%s(record, text)', p_id)) is not null then
    execute format('drop function plank.%I(record, text)', 'virtual_' || p_id);
  end if;
  execute format('drop view if exists plank.%I', 'outbox_' || p_id);
end $$;
