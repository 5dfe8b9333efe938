-- Attaching and detaching tables.

-- The names and numbers of the columns p_numbers. The result also has the recorded names of columns
-- that were dropped, each with a null number.
create function plank.names_and_numbers(
  relation regclass, p_numbers smallint[], p_names text[], p_former smallint[],
  out names text[], out numbers smallint[])
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  with now as (
    select attname::text as name, attnum as number from pg_attribute
    where attrelid = relation and attnum = any (p_numbers))
  select coalesce(array_agg(name order by number, name), '{}'),
         coalesce(array_agg(number order by number, name), '{}')
  from (
    select * from now union all
    select distinct name, null::smallint from unnest(p_names, p_former) f(name, number)
    where name not in (select name from now) and (number is null or number not in (select number from now))) x
$$;

-- Records the names and numbers that an attached table and its columns have in this database's
-- catalog.
create function plank.record_columns(p_id integer) returns void
language sql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  update plank.attachments t
  set catalog = plank.this_catalog(), relation = a.relation, schema_name = n.nspname, table_name = c.relname,
      excluded = e.names, excluded_numbers = e.numbers, read_only = r.names, read_only_numbers = r.numbers,
      seen_names = s.names, seen_numbers = s.numbers, seen_keys = array(
        select attnum from pg_attribute where attrelid = a.relation and attname = any (t.key_columns)
        union select unnest(t.seen_keys) where not a.moved)
  from plank.attached a
  join pg_class c on c.oid = a.relation join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (select * from plank.attachments o where o.id = p_id) o
  cross join lateral plank.names_and_numbers(a.relation, a.excluded, o.excluded, o.excluded_numbers) e
  cross join lateral plank.names_and_numbers(a.relation,
    (select array_agg(attnum) from pg_attribute where attrelid = a.relation and attname = any (a.read_only)),
    o.read_only, o.read_only_numbers) r
  cross join lateral (
    select array_agg(name) as names, array_agg(number) as numbers from (
      select attname::text as name, attnum as number from pg_attribute
      where attrelid = a.relation and attnum > 0 and not attisdropped
      union
      select name, number from unnest(o.seen_names, o.seen_numbers) x(name, number) where not a.moved) x) s
  where t.id = p_id and a.id = p_id
$$;

-- Columns that were excluded or read-only in the database where the table was attached, and that do
-- not exist in this database.
create function plank.lost_columns(p_id integer) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select string_agg(distinct quote_ident(n.name), ', ') from plank.attachments t join plank.attached a on a.id = t.id
  cross join unnest(t.excluded || t.read_only, t.excluded_numbers || t.read_only_numbers) n(name, number)
  where t.id = p_id and a.moved and n.number is not null and not exists (
    select from pg_attribute c
    where c.attrelid = a.relation and c.attname = n.name and c.attnum > 0 and not c.attisdropped)
$$;

-- Rewrites the capture functions and triggers of an attached table for its current definition, and
-- notifies every gateway by an event, in the order of changes:
--   S  if the table's row in plank.catalog changed, so that clients see another shape;
--   R  otherwise, if rows changed, appeared or disappeared without INSERT, UPDATE or DELETE. This
--      is so if p_rewritten is true or plank.rendering differs.
-- If it is not certain which columns may be shown, fails and changes nothing. Texts that are
-- compared must not depend on the caller's settings. So this function and all functions that
-- compare texts pin the settings.
create function plank.refresh(p_id integer, p_rewritten boolean default false, p_tag text default '') returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
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
    raise exception
      'plank: this database is a restored dump, and % has no column % here, which was excluded or read-only',
      a.relation, plank.lost_columns(p_id)
      using errcode = 'undefined_column', hint = format(
        'Name the columns again: select plank.attach(%L, exclude => …, read_only => …)', a.relation);
  end if;
  keys := plank.key_columns(a.relation);
  if exists (select from pg_attribute
             where attrelid = a.relation and attnum = any (a.excluded) and attname = any (keys)) then
    raise exception 'plank: a column of the primary key of % cannot be excluded', a.relation
      using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(quote_ident(g), ', ') into shown from unnest(plank.showing(a.relation, a.excluded)) g;
  if shown is not null then
    raise notice 'plank: generated columns of % are sent to clients, and are computed from excluded columns: %',
      a.relation, shown
      using hint = 'Exclude them too if that is not intended.';
  end if;
  update plank.attachments set key_columns = keys where id = p_id and keys is not null;
  perform plank.record_columns(p_id);
  select * into strict a from plank.attached where id = p_id;
  perform plank.generate(a);
  for t in select * from plank.triggers(a.id, a.relation) loop
    perform plank.put_trigger(t.relation, t.name, t.definition);
  end loop;
  perform plank.drop_triggers(a.id, but_of => a.relation);
  select x.shape, md5((to_jsonb(c) - '{version,policies,policies_version}'::text[])::text) as catalog_digest into seen
  from plank.catalog c cross join lateral plank.shape(c) x(shape) where c.id = p_id;
  update plank.attachments
  set shape = seen.shape, catalog_digest = seen.catalog_digest,
      code = (select * from plank.code(p_id)), rendering = plank.rendering(a.relation)
  where id = p_id;
  select * into strict a from plank.attached where id = p_id;
  -- comes before the event S, so that no policy is ever used with columns that it does not mean
  perform plank.follow_policies(p_id);
  if a.catalog_digest is distinct from was.catalog_digest then
    insert into plank.outbox (relation, action) values (a.id, 'S');
    perform plank.ring();
  elsif p_rewritten or plank.renders_differently(was.rendering, a.rendering, p_tag) then
    insert into plank.outbox (relation, action) values (a.id, 'R');
    perform plank.ring();
  end if;
end $$;

-- Attaches a table, or changes the settings of an attached one. A partitioned table is attached
-- with its partitions.
--   select plank.attach('public.orders');
--   select plank.attach('public.users', exclude => '{password_hash}', read_only => '{created_at}');
-- exclude: columns that never leave the database. read_only: columns that REST refuses to write. If
-- a parameter is left out, its setting stays as it is. '{}' clears the setting, and a notice names
-- the columns that are sent or writable from now on. Another notice names generated columns that
-- are computed from excluded columns. Returns the name that clients use for the table. Fails if the
-- relation is not a table or has no primary key, if a named column does not exist, if an excluded
-- column is in the primary key, if another attached table has the same name, or if the table cannot
-- be locked within five seconds.
create function plank.attach(relation regclass, exclude text[] default null, read_only text[] default null) returns text
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
declare
  keys     text[];
  wrong    text;
  repair   text;
  was      plank.attached;
  a        plank.attached;
  is_unsure boolean;
  has_triggers boolean;
  hides     boolean;
begin
  select u.problem, u.repair into wrong, repair from plank.unfit(attach.relation) u limit 1;
  if found then
    raise exception 'plank: cannot attach: % %', attach.relation, wrong
      using errcode = 'wrong_object_type',
            hint = case when repair is null or repair like 'select%' then '' else repair end;
  end if;
  keys := plank.key_columns(attach.relation);
  select string_agg(x, ', ') into wrong from unnest(exclude || read_only) x
  where not exists (
    select from pg_attribute t
    where t.attrelid = attach.relation and t.attname = x and t.attnum > 0 and not t.attisdropped);
  if wrong is not null then
    raise exception 'plank: table % has no column %', attach.relation, wrong using errcode = 'undefined_column';
  end if;
  if exclude && keys then
    raise exception 'plank: a column of the primary key of % cannot be excluded', attach.relation
      using errcode = 'invalid_parameter_value';
  end if;
  if exists (select from plank.attached o join pg_class t on t.oid = o.relation
             where o.relation <> attach.relation and o.name = (select plank.public_name(attach.relation))) then
    raise exception 'plank: another attached table has the name % too', plank.public_name(attach.relation)
      using errcode = 'duplicate_object';
  end if;
  select * into was from plank.attached o where o.relation = attach.relation;
  has_triggers := found and not exists (
    select from plank.triggers(was.id, attach.relation) w
    left join pg_trigger g on g.tgrelid = w.relation and g.tgname = w.name
    where g.oid is null or pg_get_triggerdef(g.oid) <> 'CREATE ' || w.definition or g.tgenabled in ('D', 'R'));
  hides := was.id is not null and (was.excluded is null
    or not array(select unnest(plank.column_names(attach.relation, was.excluded))) @> coalesce(exclude, '{}'));
  -- The lock waits for the table's writers, so it is taken only if triggers or exclusions change.
  if hides or not has_triggers then
    perform plank.lock_table(attach.relation, 'share row exclusive', 5000, p_strict => hides);
    select * into was from plank.attached o where o.relation = attach.relation;
  end if;
  -- If DDL is not followed, or this call repairs triggers or functions, rows may have changed
  -- without an event.
  is_unsure := not plank.follows_ddl() or was.code is distinct from (select * from plank.code(was.id))
            or not has_triggers;
  if was.id is null then
    insert into plank.attachments (catalog, relation, schema_name, table_name, key_columns)
    select plank.this_catalog(), attach.relation, n.nspname, c.relname, keys
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = attach.relation
    on conflict do nothing returning id into was.id;
    if not found then
      -- another session has attached the table at the same time
      select * into strict was from plank.attached o where o.relation = attach.relation;
    end if;
  end if;
  update plank.attachments t set
    excluded = coalesce(attach.exclude, t.excluded),
    excluded_numbers = case when attach.exclude is null then t.excluded_numbers
                            else array_fill(null::smallint, array[cardinality(attach.exclude)]) end,
    read_only = coalesce(attach.read_only, t.read_only),
    read_only_numbers = case when attach.read_only is null then t.read_only_numbers
                             else array_fill(null::smallint, array[cardinality(attach.read_only)]) end
  where id = was.id;
  select * into strict a from plank.attached where id = was.id;
  if not was.excluded @> a.excluded or was.excluded is null and was.relation is not null then
    perform plank.hide_former_columns(a);
  end if;
  perform plank.refresh(a.id, p_rewritten => is_unsure);
  perform plank.notice_widened(a.relation, 'sent to clients',
    array(select unnest(was.excluded) except select unnest(a.excluded)));
  perform plank.notice_widened(a.relation, 'writable over REST', array(
    select attnum from pg_attribute t where t.attrelid = a.relation
      and attname in (select unnest(was.read_only) except select unnest(a.read_only))));
  return a.name;
end $$;

-- Raises a notice that names columns that are no longer excluded or read-only.
create function plank.notice_widened(relation regclass, p_what text, p_numbers smallint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
begin
  if cardinality(p_numbers) > 0 then
    raise notice 'plank: of % these columns are % from now on: %', relation, p_what,
      (select string_agg(quote_ident(name), ', ') from unnest(plank.column_names(relation, p_numbers)) name);
  end if;
end $$;

-- Hides captured values of columns that are now excluded. The function records which columns may
-- still be read in earlier images: those whose present name has never been the name of another
-- column. The caller has locked the table. So all later writers run the capture functions that
-- plank.refresh generates next.
create function plank.hide_former_columns(a plank.attached) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  own   numeric := pg_current_xact_id()::text;
  newer numeric;
begin
  begin
    update plank.attachments t set
      former_columns = array(
        select attname::text from pg_attribute c
        where c.attrelid = a.relation and c.attnum > 0 and not c.attisdropped
          and c.attnum <> all (a.excluded) and not a.moved
          and (c.attname::text, c.attnum) in (select * from unnest(t.seen_names, t.seen_numbers))
          and not exists (select from unnest(t.seen_names, t.seen_numbers) s(name, number)
                          where s.name = c.attname and s.number <> c.attnum)),
      former_key = not a.moved and not (a.excluded && t.seen_keys)
    where t.id = a.id returning xmin::text into newer;
  exception when others then
    -- This clause makes the block a subtransaction. The subtransaction's id is the newest of all
    -- transaction ids. So the ids of all earlier writers are below it, even if this transaction's
    -- snapshot does not see these writers.
    raise;
  end;
  -- extends the subtransaction's 32-bit id to 64 bits, by means of this transaction's 64-bit id
  update plank.attachments t set former_catalog = plank.this_catalog(),
    former_xid = (own + mod(newer - mod(own, 4294967296) + 4294967296, 4294967296))::text::xid8
  where t.id = a.id;
end $$;

-- Stops capturing a table, and removes its policies. Clients get no more changes of the table, not
-- even changes that were captured before. Policies of other tables that name the table by $from
-- allow nothing until they are set again.
create function plank.detach(relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  a plank.attached;
begin
  select * into a from plank.attached t where t.relation = detach.relation;
  if a.id is null then
    raise exception 'plank: table % is not attached', detach.relation using errcode = 'undefined_object';
  end if;
  -- dropping triggers takes the same lock, but would wait without a bound
  perform plank.lock_table(a.relation, 'access exclusive', 5000, p_strict => false);
  delete from plank.attachments where id = a.id;
  perform plank.follow_policies(a.id);
  if cardinality(a.excluded) > 0 then
    raise notice 'plank: % no longer excludes %; name these columns again when you attach the table again', a.relation,
      array_to_string(plank.column_names(a.relation, a.excluded), ', ');
  end if;
  perform plank.drop_triggers(a.id);
  perform plank.drop_generated(a.id);
  insert into plank.outbox (relation, action) values (a.id, 'S');
  perform plank.ring();
end $$;
