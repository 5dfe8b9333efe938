-- The bound on a row's image, between the database and all that holds rows in memory. The image of a row above it is partial: without
-- the large columns, or where that is not enough, the key and nothing else. It begins with a space, which no whole image does.
--
-- What is left out depends on how large the rendered columns are and on nothing else, so that capture, REST and snapshots leave out the
-- same. A value in a transition table is not yet compressed, and later it is: its stored size says only whether it needs a look.

-- In bytes. One place for it: it becomes a constant in every plan, which are made anew when it changes.
create function plank.row_bytes() returns integer language sql immutable parallel safe as 'select 8388608';

-- Sets the bound. What clients have of rows that are large by one of the two is void: they begin anew.
--   select plank.configure(row_bytes => 4194304);
create function plank.configure(row_bytes integer) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  -- what is read of the log is cut at the most, see plank.read_log
  if configure.row_bytes is null or configure.row_bytes not between 65536 and 33554432 then
    raise exception 'plank: row_bytes must be between 65536 and 33554432' using errcode = 'invalid_parameter_value';
  end if;
  execute format('create or replace function plank.row_bytes() returns integer language sql immutable parallel safe as %L',
                 format('select %s', configure.row_bytes));
  perform plank.refresh(id) from plank.attached;
end $$;

-- The size of a text or bytea as it is when it is not compressed, which its head says. (Of a column that is of another type by now,
-- anything that does not fail.)
create function plank.raw_size(text) returns integer language sql immutable parallel safe as 'select octet_length($1)';
create function plank.raw_size(bytea) returns integer language sql immutable parallel safe as 'select octet_length($1)';
create function plank.raw_size(anyelement) returns integer language sql stable parallel safe as 'select pg_column_size($1)';

-- Values of these types are small, whatever they are.
create function plank.is_narrow(base oid, p_modifier integer) returns boolean language sql stable as $$
  select base = any ('{numeric,inet,cidr,int4range,int8range,daterange,tsrange,tstzrange}'::regtype[])
      or base = any ('{varchar,bpchar}'::regtype[]) and p_modifier between 1 and 300
$$;

-- Whether a type, which is no domain, may hold any number of numerics (1e131071 is small, and its text is not). To look into each of a
-- user's types would take longer than it is worth.
create function plank.holds_numeric(base oid) returns boolean language sql stable as $$
  select base = any ('{jsonb,numeric[],jsonb[],numrange[],nummultirange,nummultirange[]}'::regtype[])
      or base >= 16384 and exists (select from pg_type where oid = base and (typtype in ('c', 'r', 'm') or typelem <> 0))
$$;

-- A column's value as JSON; of one that is large by itself, # and at least how many bytes of JSON it is. In no case more is rendered
-- than a few times the bound.
create function plank.rendered(p_value text) returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
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

create function plank.rendered(p_value bytea) returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return case when p_value is null then 'null'
              when octet_length(p_value)::bigint * 2 + 5 > plank.row_bytes() / 8 then '#' || octet_length(p_value)::bigint * 2 + 5
              else to_json(p_value)::text end;
end $$;

create function plank.rendered_any(p_value anyelement) returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  raw  bigint := pg_column_size(p_value);
  json text;
begin
  if num_nulls(p_value) = 1 then
    return 'null';
  end if;
  -- No type's JSON is a quarter of it or less. (A row holds no value compressed: so its size is the raw one, and no JSON was made.)
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
    -- what is small in itself can be very large as text: 1e131071
    return '#2000000000';
end $$;

-- Where the column is of another type by now.
create function plank.rendered(anyelement) returns text language sql stable as 'select plank.rendered_any($1)';

-- The partial image of a row of which these are the columns, in order; null where it is not large. With p_or_whole its image, null where
-- these do not say all of it.
create function plank.partial_image(p_columns text[], p_names text[], p_keys boolean[], p_or_whole boolean default false) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  whole bigint := 2;
  rest  text;
begin
  for i in 1 .. cardinality(p_columns) loop
    whole := whole + octet_length(p_names[i]) + 2 + case when p_columns[i] ^@ '#' then substr(p_columns[i], 2)::bigint else octet_length(p_columns[i]) end;
  end loop;
  if whole <= plank.row_bytes() then
    return (select '{' || string_agg(name || ':' || value, ',' order by place) || '}'
            from unnest(p_columns, p_names) with ordinality c(value, name, place) having p_or_whole and not bool_or(value ^@ '#'));
  end if;
  -- a key of its own is never large
  select ' {' || string_agg(name || ':' || value, ',' order by place) || '}' into rest
  from unnest(p_columns, p_names) with ordinality c(value, name, place) where not value ^@ '#';
  if octet_length(rest) > plank.row_bytes() then
    select ' {' || string_agg(name || ':' || value, ',' order by place) || '}' into rest
    from unnest(p_columns, p_names, p_keys) with ordinality c(value, name, is_key, place) where is_key;
  end if;
  return coalesce(rest, ' {}');
end $$;
