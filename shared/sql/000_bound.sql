-- The size bound of a row's image, for everything that holds rows in memory: the database,
-- listeners, gateways, clients. The image of a row above the bound is partial: it lacks the large
-- columns. If the remaining columns are still above the bound, it has only the key. A partial image
-- begins with a space; a whole image never does.
--
-- Capture, REST and snapshots must leave out the same columns. So the choice depends only on the
-- size of the rendered columns. The stored size cannot decide, as a value in a transition table is
-- not compressed yet and the same value in the table later is. The stored size only says whether a
-- row needs to be measured.

-- In bytes of JSON. Plans contain the bound as a constant; plank.configure replaces the function
-- and so invalidates them.
create function plank.row_bytes() returns integer language sql immutable parallel safe as 'select 8388608';

-- Sets the bound. Clients read their rows again: what they hold of rows that are large by the old
-- or the new bound is no longer valid.
--   select plank.configure(row_bytes => 4194304);
create function plank.configure(row_bytes integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- plank.read_log cuts images at the upper limit
  if configure.row_bytes is null or configure.row_bytes not between 65536 and 33554432 then
    raise exception 'plank: row_bytes must be between 65536 and 33554432' using errcode = 'invalid_parameter_value';
  end if;
  execute format(
    'create or replace function plank.row_bytes() returns integer language sql immutable parallel safe as %L',
    format('select %s', configure.row_bytes));
  perform plank.refresh(id) from plank.attached;
end $$;

-- The uncompressed size of a text or bytea; its header has it, so that nothing is decompressed. The
-- third variant keeps generated code working when a column has become another type since: any size
-- will do, as long as nothing fails.
create function plank.raw_size(text) returns integer language sql immutable parallel safe as 'select octet_length($1)';
create function plank.raw_size(bytea) returns integer language sql immutable parallel safe as 'select octet_length($1)';
create function plank.raw_size(anyelement) returns integer
language sql stable parallel safe as 'select pg_column_size($1)';

-- Whether every value of the type is small.
create function plank.is_narrow(base oid, p_modifier integer) returns boolean language sql stable as $$
  select base = any ('{numeric,inet,cidr,int4range,int8range,daterange,tsrange,tstzrange}'::regtype[])
      or base = any ('{varchar,bpchar}'::regtype[]) and p_modifier between 1 and 300
$$;

-- Whether a type (no domain) may hold any number of numerics. A numeric can be small and its text
-- large: 1e131071. True for every composite, range, multirange or array type of users: to look into
-- each would take too long.
create function plank.holds_numeric(base oid) returns boolean language sql stable as $$
  select base = any ('{jsonb,numeric[],jsonb[],numrange[],nummultirange,nummultirange[]}'::regtype[])
      or base >= 16384 and exists (
        select from pg_type where oid = base and (typtype in ('c', 'r', 'm') or typelem <> 0))
$$;

-- A column's value as JSON. For a value that is large by itself (more than an eighth of the bound):
-- '#' and a lower limit of its size as JSON, in bytes. At most a few times the bound is ever
-- rendered.
create function plank.rendered(p_value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  json text;
begin
  if p_value is null then
    return 'null';
  elsif octet_length(p_value) > plank.row_bytes() then
    return '#' || octet_length(p_value);
  end if;
  json := to_json(p_value)::text;
  return case when octet_length(json) > plank.row_bytes() / 8 then '#' || octet_length(json) else json end;
end $$;

create function plank.rendered(p_value bytea) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return case when p_value is null then 'null'
              when octet_length(p_value)::bigint * 2 + 5 > plank.row_bytes() / 8
                then '#' || octet_length(p_value)::bigint * 2 + 5
              else to_json(p_value)::text end;
end $$;

create function plank.rendered_any(p_value anyelement) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  raw  bigint := pg_column_size(p_value);
  json text;
begin
  if num_nulls(p_value) = 1 then
    return 'null';
  end if;
  -- For every type, JSON takes at least a quarter of the uncompressed size. The size of a row with
  -- the value is the uncompressed one, as a row never holds its values compressed; no JSON is made
  -- to learn it.
  if raw <= 4::bigint * plank.row_bytes() then
    raw := pg_column_size(row(p_value));
  end if;
  if raw > 4::bigint * plank.row_bytes() then
    return '#' || raw;
  end if;
  json := to_json(p_value)::text;
  return case when octet_length(json) > plank.row_bytes() / 8 then '#' || octet_length(json) else json end;
exception
  when program_limit_exceeded or out_of_memory then
    -- a value that is small as stored and very large as text, such as 1e131071
    return '#2000000000';
end $$;

-- Used when the column has become another type since the calling code was generated.
create function plank.rendered(anyelement) returns text language sql stable as 'select plank.rendered_any($1)';

-- The partial image of a row, made of its rendered columns in order; null if the row is not large.
-- With p_or_whole, a row that is not large gets its whole image, or null if a column was not
-- rendered.
create function plank.partial_image(
  p_columns text[], p_names text[], p_keys boolean[], p_or_whole boolean default false) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  whole bigint := 2;
  rest  text;
begin
  for i in 1 .. cardinality(p_columns) loop
    whole := whole + octet_length(p_names[i]) + 2
           + case when p_columns[i] ^@ '#' then substr(p_columns[i], 2)::bigint else octet_length(p_columns[i]) end;
  end loop;
  if whole <= plank.row_bytes() then
    return (select '{' || string_agg(name || ':' || value, ',' order by place) || '}'
            from unnest(p_columns, p_names) with ordinality c(value, name, place)
            having p_or_whole and not bool_or(value ^@ '#'));
  end if;
  -- the key is among these: no key column is large by itself
  select ' {' || string_agg(name || ':' || value, ',' order by place) || '}' into rest
  from unnest(p_columns, p_names) with ordinality c(value, name, place) where not value ^@ '#';
  if octet_length(rest) > plank.row_bytes() then
    select ' {' || string_agg(name || ':' || value, ',' order by place) || '}' into rest
    from unnest(p_columns, p_names, p_keys) with ordinality c(value, name, is_key, place) where is_key;
  end if;
  return coalesce(rest, ' {}');
end $$;
