-- Bounds the size of a row's image, because the database, listeners, gateways and clients hold rows
-- in memory. If a row's image would be larger than the bound, its image is partial: the image lacks
-- the large columns. If the remaining columns are still larger than the bound, the image has only
-- the key. A partial image begins with a space; a whole image never does.
--
-- Capture, REST and snapshots must leave out the same columns. So only the size of the rendered
-- columns decides which columns are left out. The stored size cannot decide: a value is not
-- compressed in a transition table, and the same value may be compressed in the table later. The
-- stored size decides only whether a row is measured: whether its columns are rendered to get their
-- sizes.

-- The bound, in bytes of JSON. Query plans contain the bound as a constant. plank.configure
-- replaces this function, and so invalidates these plans.
create function plank.row_bytes() returns integer language sql immutable parallel safe as 'select 8388608';

-- Sets the bound. Clients then read all their rows again, because a row that is large by the old or
-- the new bound has another image now.
--   select plank.configure(row_bytes => 4194304);
create function plank.configure(row_bytes integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- plank.read_log returns an image above 33554432 bytes without columns, so the bound must not be
  -- higher
  if configure.row_bytes is null or configure.row_bytes not between 65536 and 33554432 then
    raise exception 'plank: row_bytes must be between 65536 and 33554432' using errcode = 'invalid_parameter_value';
  end if;
  execute format(
    'create or replace function plank.row_bytes() returns integer language sql immutable parallel safe as %L',
    format('select %s', configure.row_bytes));
  perform plank.refresh(id) from plank.attached;
end $$;

-- The uncompressed size of a text or bytea. The value's header contains this size, so nothing is
-- decompressed. The third variant is called if a column got another type after the calling code was
-- generated. It returns some size, only so that the calling code does not fail.
create function plank.raw_size(text) returns integer language sql immutable parallel safe as 'select octet_length($1)';
create function plank.raw_size(bytea) returns integer language sql immutable parallel safe as 'select octet_length($1)';
create function plank.raw_size(anyelement) returns integer
language sql stable parallel safe as 'select pg_column_size($1)';

-- Whether every value of a type is small. The type is given without its domain (base), and with its
-- modifier (pg_attribute.atttypmod).
create function plank.is_narrow(base oid, p_modifier integer) returns boolean language sql stable as $$
  select base = any ('{numeric,inet,cidr,int4range,int8range,daterange,tsrange,tstzrange}'::regtype[])
      or base = any ('{varchar,bpchar}'::regtype[]) and p_modifier between 1 and 300
$$;

-- Whether a type (not a domain) may hold any number of numerics. A numeric can be small and its
-- text large: 1e131071. The result is true for every user-defined composite, range, multirange or
-- array type, because looking into each of these types would take too long.
create function plank.holds_numeric(base oid) returns boolean language sql stable as $$
  select base = any ('{jsonb,numeric[],jsonb[],numrange[],nummultirange,nummultirange[]}'::regtype[])
      or base >= 16384 and exists (
        select from pg_type where oid = base and (typtype in ('c', 'r', 'm') or typelem <> 0))
$$;

-- Returns a column's value as JSON. If the value is large by itself (its JSON takes more than an
-- eighth of the bound), returns '#' and a number instead. The value's JSON takes at least that
-- number of bytes. No call makes a text of more than a few times the bound.
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
  -- For every type, JSON takes at least a quarter of the uncompressed size. To get the uncompressed
  -- size without making JSON, measure a row made of the value: values in such a row are never
  -- compressed.
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
    -- the value is small as stored and very large as text, such as 1e131071
    return '#2000000000';
end $$;

-- Called if the column got another type after the calling code was generated.
create function plank.rendered(anyelement) returns text language sql stable as 'select plank.rendered_any($1)';

-- Makes the partial image of a row. p_columns holds the row's columns in order, each as
-- plank.rendered returns it. If the row is not large, returns null. If the row is not large and
-- p_or_whole is true, returns the whole image instead, or null if p_columns has a '#' in place of a
-- value.
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
  -- these columns include the key, as no key column is large by itself
  select ' {' || string_agg(name || ':' || value, ',' order by place) || '}' into rest
  from unnest(p_columns, p_names) with ordinality c(value, name, place) where not value ^@ '#';
  if octet_length(rest) > plank.row_bytes() then
    select ' {' || string_agg(name || ':' || value, ',' order by place) || '}' into rest
    from unnest(p_columns, p_names, p_keys) with ordinality c(value, name, is_key, place) where is_key;
  end if;
  return coalesce(rest, ' {}');
end $$;
