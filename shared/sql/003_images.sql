-- How rows, their keys and their values are rendered. The functions here return SQL text.
-- 004_capture.sql builds a table's generated functions from this text, and gateways run it.

-- The settings under which every writer renders an image to the same bytes. Gateways read under the
-- same settings.
create function plank.canonical_settings() returns text language sql immutable as $$
  select 'set timezone = ''UTC'' set datestyle = ''ISO, YMD'' set intervalstyle = ''iso_8601'' '
      || 'set extra_float_digits = 1 set bytea_output = ''hex'' set lc_monetary = ''C'''
$$;

-- Whether DDL regenerates a table's functions (013_follow.sql). If DDL does not, the functions must
-- stay right when a column gets any other type.
create function plank.follows_ddl() returns boolean language sql stable as $$
  select exists (select from pg_event_trigger where evtname = 'plank_ddl' and evtenabled in ('O', 'A'))
$$;

-- The canonical settings that the images of a table depend on. The others are left out, because
-- each setting costs every write 1 to 2 µs. If the table has a type that is not listed here (ranges
-- of times, composite types, user-defined types), or if DDL is not followed, returns all canonical
-- settings.
create function plank.image_settings(a plank.attached) returns text language sql stable as $$
  with recursive column_types as (
    select atttypid as type from pg_attribute
    where attrelid = a.relation and attnum > 0 and not attisdropped and attnum <> all (a.excluded)
    union
    select case when y.typtype = 'd' then y.typbasetype else y.typelem end
    from column_types c join pg_type y on y.oid = c.type
    where y.typtype = 'd' or y.typcategory = 'A'
  ), settings as (
    select distinct case
      when y.typtype = 'd' or y.typcategory = 'A'
        or y.oid = any ('{bool,int2,int4,int8,oid,numeric,text,varchar,bpchar,name,uuid,json,jsonb,
        date,time,timestamp,bit,varbit,inet,cidr,macaddr,macaddr8,int4range,int8range,numrange}'::regtype[]) then ''
      when y.oid = 'timestamptz'::regtype then 'set timezone = ''UTC'' '
      when y.oid = any ('{float4,float8}'::regtype[]) then 'set extra_float_digits = 1 '
      when y.oid = 'interval'::regtype then 'set intervalstyle = ''iso_8601'' '
      when y.oid = 'bytea'::regtype then 'set bytea_output = ''hex'' '
      when y.oid = 'money'::regtype then 'set lc_monetary = ''C'' '
    end as setting
    from column_types c join pg_type y on y.oid = c.type
  )
  select case when bool_or(setting is null) or not plank.follows_ddl() then plank.canonical_settings()
              else string_agg(setting, '' order by setting) end
  from settings
$$;

-- The columns (attnum) whose type, or a part of it, belongs to a role without the rights of the
-- table's owner. Rendering such a column would run that role's casts with the owner's rights. This
-- function is called several times for each table. So a fast first query handles most tables: those
-- whose types are all built into Postgres.
create function plank.foreign_columns(relation regclass) returns smallint[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (
    select from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_type y on y.oid = t.atttypid
    where t.attrelid = relation and t.attnum > 0 and not t.attisdropped
      and (y.oid >= 16384 or not pg_has_role(y.typowner, c.relowner, 'member')))
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
    -- The owner of a domain does not matter, because to_json renders the domain's base type.
    select coalesce(array_agg(distinct c.attnum), '{}')
    from column_types c join pg_type y on y.oid = c.type join pg_class t on t.oid = relation
    where y.typtype <> 'd' and not pg_has_role(y.typowner, t.relowner, 'member'));
end $$;

-- Whether to_json(row) is the row's image. True if no column is excluded, foreign or virtual, and
-- every partition has the columns in the same order.
create function plank.is_plain_layout(a plank.attached) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if a.excluded <> '{}' or plank.foreign_columns(a.relation) <> '{}'
     or exists (
       select from pg_attribute
       where attrelid = a.relation and attnum > 0 and not attisdropped and attgenerated = 'v') then
    return false;
  elsif (select relkind from pg_class where oid = a.relation) = 'r' then
    return true;
  end if;
  return not exists (
    select from pg_partition_tree(a.relation) p
    where (select array_agg(attname order by attnum) from pg_attribute
           where attrelid = p.relid and attnum > 0 and not attisdropped)
       <> (select array_agg(attname order by attnum) from pg_attribute
           where attrelid = a.relation and attnum > 0 and not attisdropped));
end $$;

-- SQL of a column's value as it is passed to to_json. A foreign column (plank.foreign_columns) is
-- converted to text, so that no user's code runs.
create function plank.value_sql(p_column text, is_foreign boolean) returns text language sql stable as $$
  select case when is_foreign
    then format('case when num_nonnulls(%1$s) = 1 then format(''%%s'', %1$s) end', p_column) else p_column end
$$;

-- The columns that the expressions of virtual columns name. Each column is numbered as a field of
-- the record that is passed to plank.virtual_N.
create function plank.virtual_bases(relation regclass) returns table (field bigint, name name, collating text)
language sql stable as $$
  select row_number() over (order by b.attnum), b.attname,
         case when b.attcollation <> 0 then format(' collate %I.%I', n.nspname, c.collname) else '' end
  from pg_attribute b
  left join pg_collation c on c.oid = b.attcollation left join pg_namespace n on n.oid = c.collnamespace
  where b.attrelid = relation and b.attnum > 0 and not b.attisdropped and b.attgenerated <> 'v' and exists (
    select from pg_attribute v join pg_attrdef d on d.adrelid = v.attrelid and d.adnum = v.attnum
    join pg_depend p on p.classid = 'pg_attrdef'::regclass and p.objid = d.oid
                     or p.classid = 'pg_class'::regclass and p.objid = v.attrelid and p.objsubid = v.attnum
    where v.attrelid = relation and v.attgenerated = 'v'
      and p.refclassid = 'pg_class'::regclass and p.refobjid = relation and p.refobjsubid = b.attnum)
$$;

-- The columns of an image, each with the SQL of its value as it is passed to to_json. p_of is a
-- prefix for the names of columns.
--
-- Virtual generated columns (PostgreSQL 18) are null in transition tables. Postgres computes a
-- virtual column only when a query names it, so the expression may fail for a row that exists.
-- Capture and every reader get the column's value from the same function: plank.virtual_N.
create function plank.column_values(a plank.attached, p_of text)
returns table (number smallint, name name, value text, is_column boolean) language sql stable as $$
  select attnum, attname,
         case when attgenerated = 'v' then
                format('plank.%I(row(%s), %s::pg_catalog.text)', 'virtual_' || a.id, (
                  -- Only the columns that the expressions of virtual columns use are passed. The
                  -- whole row is not passed, because passing a large value copies the value.
                  select string_agg(p_of || quote_ident(b.name), ', ' order by b.field)
                  from plank.virtual_bases(a.relation) b), quote_literal(attname))
              else plank.value_sql(p_of || quote_ident(attname), attnum = any (f.columns)) end,
         attgenerated <> 'v' and attnum <> all (f.columns)
  from pg_attribute cross join (select plank.foreign_columns(a.relation) as columns offset 0) f
  where attrelid = a.relation and attnum > 0 and not attisdropped and attnum <> all (a.excluded)
$$;

-- (Re)writes plank.virtual_N(row(bases), column), which returns the value of a virtual column as
-- JSON; null if the column's expression fails. The function never runs a user's code, because
-- Postgres allows only built-in functions and types in these expressions.
create function plank.generate_virtual(a plank.attached) returns void language plpgsql as $$
declare
  bases   text := (select string_agg(format('bases.f%s%s as %I', field, collating, name), ', ' order by field)
                   from plank.virtual_bases(a.relation));
  -- the cast to the column's type is explicit, because pg_get_expr leaves out implicit casts
  columns text := (select string_agg(format('when %L then return (select to_json((%s)::%s) from (select %s) t);',
                     t.attname, pg_get_expr(d.adbin, d.adrelid), format_type(t.atttypid, t.atttypmod), bases),
                     E'\n' order by t.attnum)
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

-- Returns the base type of a domain, also if the domain is over another domain. For any other type,
-- returns this type.
create function plank.base_type(type oid) returns oid language sql stable as $$
  with recursive bases as (
    select y.oid, y.typtype, y.typbasetype from pg_type y where y.oid = type
    union all
    select y.oid, y.typtype, y.typbasetype from bases b join pg_type y on y.oid = b.typbasetype where b.typtype = 'd'
  )
  select oid from bases where typtype <> 'd'
$$;

-- SQL that renders the row p_row. p_of is a prefix for the names of the row's columns.
--   whole    the row's whole image
--   suspect  whether the row may be large; null if no column of the table can be large
--   partial  if the row is large, its partial image (000_bound.sql), else null; no SQL (null) if no column can be large
--   image    the row's image, whole or partial
-- Whether a row is suspect follows from sizes that are known without rendering. As JSON, a text
-- takes at most six times its bytes. A value of another type takes at most 256 times its stored,
-- compressed bytes, or more only if the JSON consists almost entirely of escapes. Numerics are the
-- exception: a numeric of 4 to 12 bytes can take 131,000 bytes as text. So a value whose type may
-- hold numerics makes the row suspect unless the value is small and not compressed.
create function plank.row_sql(a plank.attached, p_row text, p_of text,
  out whole text, out suspect text, out partial text, out image text)
-- PL/pgSQL and not SQL, because PL/pgSQL keeps the query's plan, and planning takes longer than
-- everything else here
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
    cross join lateral (
      select case when y.typtype = 'd' then plank.base_type(y.oid) else y.oid end as oid offset 0) b
  ), kinds as (
    select kind, case kind
      when 'text' then format('greatest(%s) > plank.row_bytes() / %s',
        string_agg(format('plank.raw_size(%s)', value), ', ' order by number), 12 * count(*))
      when 'numeric' then string_agg(format(
        'pg_catalog.pg_column_size(%1$s) > plank.row_bytes() / %2$s '
          || 'or pg_catalog.pg_column_compression(%1$s) is not null',
        value, 4096), ' or ' order by number)
      when 'other' then format('greatest(%s) > plank.row_bytes() / %s',
        string_agg(format('pg_catalog.pg_column_size(%s)', value), ', ' order by number), 512 * count(*))
      end as suspect
    from columns where kind <> 'narrow' group by kind
  )
  select p.whole, k.suspect, format('case when %s then plank.partial_image(%s) end', k.suspect, p.parts),
         -- if columns were rendered to measure the row, the image is made of these renderings
         format('coalesce(case when %s then plank.partial_image(%s, true) end, %s)', k.suspect, p.parts, p.whole)
  into whole, suspect, partial, image
  from (
    select case when plank.is_plain_layout(a) then format('pg_catalog.to_json(%s.*)::pg_catalog.text', p_row) else
             format('(select pg_catalog.to_json(image.*)::pg_catalog.text from (select %s) image)',
               string_agg(value || ' as ' || quote_ident(name), ', ' order by number)) end as whole,
           format('array[%s], %L::pg_catalog.text[], %L::pg_catalog.bool[]',
             string_agg(format(
               case kind when 'text' then 'plank.rendered(%s)' else 'plank.rendered_any(%s)' end, value),
               ', ' order by number),
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

-- SQL that renders the key of the row p_row as JSON text. p_of is a prefix for the names of the
-- row's columns.
create function plank.key_sql(a plank.attached, p_row text, p_of text default null) returns text
language sql stable as $$
  select format(
    case when cardinality(a.key_columns) > 1
           then '(select pg_catalog.to_json(k.*)::pg_catalog.text from (select %s) k)'
         -- a cast gives the same bytes as to_json, but faster
         when bool_and(atttypid = any ('{int2,int4,int8}'::regtype[])) and plank.follows_ddl()
           then '%s::pg_catalog.text'
         else 'pg_catalog.to_json(%s)::pg_catalog.text' end,
    string_agg(
      plank.value_sql(x.value, attnum = any (f.columns))
      || case when cardinality(a.key_columns) = 1 then '' else ' as ' || quote_ident(c) end, ', ' order by n))
  from unnest(a.key_columns) with ordinality k(c, n)
  cross join lateral (select coalesce(p_of, p_row || '.') || quote_ident(c) as value) x
  cross join (select plank.foreign_columns(a.relation) as columns offset 0) f
  left join pg_attribute on attrelid = a.relation and attname = c
$$;

-- The columns of the primary key, in the key's order; null if the table has no primary key.
create function plank.key_columns(relation regclass) returns text[] language sql stable as $$
  select array_agg(t.attname::text order by array_position(i.indkey::int2[], t.attnum))
  from pg_index i join pg_attribute t on t.attrelid = i.indrelid and t.attnum = any (i.indkey)
  where i.indrelid = relation and i.indisprimary
$$;

-- The name of a type with its schema, for use under any search_path. The name has no modifier, so a
-- cast to the type truncates nothing.
create function plank.type_sql(type oid) returns text language sql stable as $$
  select format('%I.%I', n.nspname, y.typname) from pg_type y join pg_namespace n on n.oid = y.typnamespace
  where y.oid = type
$$;

-- A type as Postgres prints it, with its schema unless the schema is pg_catalog. So a user's type
-- never looks like a built-in type.
create function plank.type_name(type oid, modifier integer) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format_type(type, modifier)
$$;

-- The operator for a btree strategy (3 is "=", 5 is ">") on a column of the primary key, named with
-- its schema. Without the schema, search_path may find another operator: if the schema of citext is
-- not in search_path, "=" on citext is the operator of text. If the column is not in the primary
-- key, returns no row.
create function plank.key_operator(relation regclass, attnum smallint, strategy integer) returns setof text
language sql stable as $$
  select format('operator(%I.%s)', n.nspname, o.oprname)
  from pg_index i
  join pg_opclass c on c.oid = i.indclass[array_position(i.indkey::int2[], key_operator.attnum)]
  join pg_amop m on m.amopfamily = c.opcfamily and m.amopstrategy = strategy
    and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
  join pg_operator o on o.oid = m.amopopr join pg_namespace n on n.oid = o.oprnamespace
  where i.indrelid = relation and i.indisprimary
$$;

-- Whether the JSON of a type is neither the type's text nor a number. The result is true if the
-- type has parts or has a cast of its own to json.
create function plank.is_structured(type oid) returns boolean language sql stable as $$
  -- The parts of an array's element need no check. An element that is a domain or an array makes
  -- the type structured anyway, and to_json does not look into a type that is not a true array.
  select y.typtype = 'c'
      or (e.oid is not null and (y.oid <> type or e.typtype in ('c', 'd')
                                 or e.typsubscript = 'array_subscript_handler'::regproc
                                 or e.typnamespace <> 'pg_catalog'::regnamespace or e.typdelim <> ','))
      or exists (select from pg_cast k where k.castsource in (y.oid, e.oid) and k.castsource >= 16384
                                         and k.casttarget = 'json'::regtype and k.castmethod = 'f')
  from pg_type y
  left join pg_type e on e.oid = y.typelem and y.typsubscript = 'array_subscript_handler'::regproc
  where y.oid = plank.base_type(type)
$$;

-- SQL that finds the row t for the key $1, given as JSON text. Domain constraints are not checked.
-- If the JSON of a key column's type is not its text, the JSON is compared.
create function plank.key_match(a plank.attached) returns text language sql stable as $$
  select string_agg(case
    when y.typtype <> 'e' and attnum = any (f.columns) then format('format(''%%s'', t.%I) = %s', attname, x.value)
    -- to_json is not used for a foreign type, because it would run the cast of the type's owner
    when attnum <> all (f.columns) and (y.typcategory = 'A' or y.oid = 'jsonb'::regtype or plank.is_structured(y.oid))
      then format('to_json(t.%I)::text = (%s)::text', attname, x.json)
    else format('t.%I %s (%s)::%s', attname,
      coalesce((select * from plank.key_operator(a.relation, attnum, 3)), '='), x.value, plank.type_sql(y.oid)) end,
    ' and ')
  from pg_attribute t join pg_type y on y.oid = plank.base_type(t.atttypid)
  cross join lateral (
    select case when cardinality(a.key_columns) = 1 then '$1::json' else format('$1::json -> %L', attname) end as json,
           case when cardinality(a.key_columns) = 1 then '$1::json #>> ''{}'''
                else format('$1::json ->> %L', attname) end as value) x
  cross join (select plank.foreign_columns(a.relation) as columns offset 0) f
  where attrelid = a.relation and attname = any (a.key_columns)
$$;
