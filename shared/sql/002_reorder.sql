-- Puts the changes that one transaction made to a row into the order in which they happened.
-- Postgres runs the capture triggers in another order in two cases:
-- - An AFTER trigger of the user changes rows itself. Its statements are captured before the
--   statement that fired it.
-- - One statement has several cascades. The capture of the deleted rows may run before the capture
--   of the updated rows.
-- Each event's old image is the new image of the event before it. So the events of a row, in the
-- right order, form a path from image to image. If a row returned to an earlier image, several
-- paths are possible. Any of them will do, as each path leads from the row's first image to its
-- current one. If an outer statement has not been captured yet, there may be no path. Then the
-- events stay as they are, and the capture of the outer statement looks at the same rows again.
--
-- All of this runs as the table's owner, who may not use the outbox itself. It uses the view
-- plank.outbox_N, which shows the changes that this transaction has made to table N.
--
-- Only the ids of events of one uncommitted transaction are exchanged, so readers never see a wrong
-- order. State is kept in settings, which are local to the transaction and roll back with its
-- savepoints:
--   plank.nested_N
--     Three ids for each trigger depth d: [3d - 2] is the last id before the first capture at that
--     depth, [3d - 1] the last id before the latest capture at that depth, [3d] the last id after
--     the latest capture at that depth. Empty until a capture runs at a depth above 1.
--   plank.reordered_N_DEPTH_OP
--     The last id at the time when a capture of that depth and operation last reordered the events
--     of deeper captures. Events up to this id belong to that capture's statement or to earlier
--     statements. There is one setting for each operation, because one statement may run several
--     captures (ON CONFLICT, MERGE, cascades), and its nested captures run before all of them.
--   plank.tids_N
--     Only in serializable transactions: the places (tid) of the captured events.
--
-- If a serializable transaction reads rows through an index, Postgres locks the index pages that it
-- reads. In the outbox these are the pages that every writer appends to. So transactions that have
-- no row in common would fail. If the transaction reads a row by its place (tid) instead, Postgres
-- locks only that row, or nothing if the transaction wrote the row itself. So a serializable
-- transaction remembers the places of its captured events: up to 200 for each table, as each
-- capture looks at all of them. With more than 200, it reads through the index.

-- The images that a row's events start from: the images that occur more often as an old image than
-- as a new image, each repeated by the difference. If the events form a circle, there is no such
-- image. If events are still missing, there is more than one such image.
create function plank.path_starts(p_old text[], p_new text[]) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(image), '{}') from (
    select image, sum(n) as balance
    from (select unnest(p_old) as image, 1 as n union all select unnest(p_new), -1) x group by image) b
  cross join generate_series(1, balance)
$$;

-- The numbers of the events in an order in which each event's old image is the new image of the
-- event before it; null if there is no such order. If the events form a circle, the path begins and
-- ends at p_current.
create function plank.path(p_old text[], p_new text[], p_current text) returns integer[]
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  n       integer := cardinality(p_old);
  starts  text[] := plank.path_starts(p_old, p_new);
  start   text := case when cardinality(starts) = 0 then p_current else starts[1] end;
  used    boolean[] := array_fill(false, array[n]);
  trail   integer[] := '{}';  -- walked events that are not in the path; the walk is at the last one's new image
  path    integer[] := '{}';
  at      text;
  step    integer;
begin
  -- Hierholzer's algorithm: while an unused event begins with the image that the walk has reached,
  -- take this event; else move the last event of the trail to the front of the path.
  loop
    at := case when cardinality(trail) = 0 then start else p_new[trail[cardinality(trail)]] end;
    step := null;
    for i in 1 .. n loop
      if not used[i] and p_old[i] is not distinct from at then
        step := i;
        exit;
      end if;
    end loop;
    if step is not null then
      used[step] := true;
      trail := trail || step;
    elsif cardinality(trail) = 0 then
      exit;
    else
      step := trail[cardinality(trail)];
      if cardinality(path) > 0 and p_old[path[1]] is distinct from p_new[step] then
        return null;
      end if;
      path := step || path;
      trail := trail[: cardinality(trail) - 1];
    end if;
  end loop;
  return case when cardinality(path) = n then path end;
end $$;

-- The last id that any change was given. Changes that are captured from now on get higher ids.
create function plank.last_id() returns bigint language sql volatile as $$
  select coalesce(pg_sequence_last_value('plank.outbox_id_seq'::regclass), 0)
$$;

-- (Re)writes plank.reorder_N(p_from, p_mark, p_tids, p_net) of a table. That function puts events
-- with ids above p_from into order, for each row (key) that has an event with an id above p_mark.
-- The events of a key with more than 500 events stay as they are. If p_tids is given, the function
-- looks only at the events at these places, and returns the events' places afterwards. Each table
-- has its own function, so that Postgres keeps the plans.
--
-- p_net is for deferrable primary keys. With such a key, two rows may have the same key for a
-- while, so events of both rows have this key. These events may still form a path. If they form no
-- path, one row had the key for a while, and another row has the key now. Then all events of the
-- key are replaced by one event, from the first image to the current one.
create function plank.generate_reorder(p_relation integer) returns void language plpgsql as $$
declare
  chains text := $q$
    with events as (
      select id, key, old, new, action, tid from plank.outbox_%1$s where %2$s
    ), linked as (
      select *, lag(new) over w is not distinct from old or row_number() over w = 1 as links from events
      where key is not null and id > coalesce((select max(id) from events where action = 'T'), 0)
      window w as (partition by key order by id)
    )
    select key, array_agg(id order by id) as ids, array_agg(tid order by id) as tids,
           array_agg(old order by id) as old, array_agg(new order by id) as new
    from linked group by key
    having count(*) between 2 and 500 and max(id) > %3$s
       and (not bool_and(links)
            or (array_agg(old order by id))[1] is not distinct from (array_agg(new order by id desc))[1])$q$;
begin
  execute format($f$
    create or replace function plank.reorder_%1$s(
      p_from bigint, p_mark bigint, p_tids tid[], p_net boolean default false) returns tid[]
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set enable_nestloop = off set enable_seqscan = off
    set enable_tidscan = on set enable_indexscan = on set enable_bitmapscan = on as $body$
    declare
      chains   refcursor;
      r        record;
      path     integer[];
      current_image text;
      tids     tid[] := p_tids;
      current_images text[];
      starts   text[];
      ends     text[];
      -- for each event that gets another id: the old id, the place and the new id
      was      bigint[] := '{}';
      at       tid[] := '{}';
      becomes  bigint[] := '{}';
      moved    tid;
    begin
      begin
        if p_tids is null then
          open chains for %2$s;
        else
          -- If p_tids has many entries, the planner would use an index instead of a TID scan. An index
          -- scan can make serializable transactions fail, so index scans are off while the cursor is opened.
          perform set_config('enable_indexscan', 'off', true), set_config('enable_bitmapscan', 'off', true);
          open chains for execute %3$L using p_from, p_mark, p_tids;
          perform set_config('enable_indexscan', 'on', true), set_config('enable_bitmapscan', 'on', true);
        end if;
        loop
          fetch chains into r;
          exit when not found;
          current_images := plank.current_%1$s(r.key);
          -- two rows have this key now; a later statement decides which of the rows keeps the key
          continue when cardinality(current_images) > 1;
          current_image := current_images[1];
          path := plank.path(r.old, r.new, current_image);
          if p_net and (path is null or r.new[path[cardinality(path)]] is distinct from current_image) then
            starts := plank.path_starts(r.old, r.new);
            ends := plank.path_starts(r.new, r.old);
            -- these events do not end at the current image, because outer statements have not been
            -- captured yet
            continue when cardinality(starts) > 1 or cardinality(ends) = 1 and ends[1] is distinct from current_image;
            if p_tids is null then
              delete from plank.outbox_%1$s where id = any (r.ids);
            else
              for i in 1 .. cardinality(r.tids) loop
                execute 'delete from plank.outbox_%1$s where tid = $1' using r.tids[i];
                p_tids := array_remove(p_tids, r.tids[i]);
              end loop;
            end if;
            if cardinality(starts) = 1 and starts[1] is distinct from current_image then
              insert into plank.outbox_%1$s (relation, action, key, old, new)
              values (%1$s,
                      case when starts[1] is null then 'I'::"char" when current_image is null then 'D' else 'U' end,
                      r.key, starts[1], current_image)
              returning tid into moved;
              if p_tids is not null then
                p_tids := p_tids || moved;
              end if;
            end if;
            continue;
          end if;
          -- If the path does not end at the current image, events are missing: those of outer
          -- statements, or of other captures of this statement.
          continue when r.new[path[cardinality(path)]] is distinct from current_image;
          for i in 1 .. coalesce(cardinality(path), 0) loop
            if path[i] <> i then
              was := was || r.ids[path[i]];
              at := at || r.tids[path[i]];
              becomes := becomes || r.ids[i];
            end if;
          end loop;
        end loop;
        close chains;
      exception
        when serialization_failure or deadlock_detected then
          raise;
        when others then
          -- A user's write must not fail because reordering fails. For example, the owner may lack
          -- the right to his own table's schema, or a row policy that is forced on him may fail.
          return tids;
      end;
      if cardinality(was) = 0 then
        return p_tids;
      end if;
      if p_tids is null then
        update plank.outbox_%1$s o set id = m.becomes from unnest(was, becomes) as m(was, becomes)
        where o.id > p_from and o.id = m.was;
        return null;
      end if;
      for i in 1 .. cardinality(at) loop
        execute 'update plank.outbox_%1$s set id = $1 where tid = $2 returning tid' into moved using becomes[i], at[i];
        p_tids := array_replace(p_tids, at[i], moved);
      end loop;
      return p_tids;
    end $body$
  $f$, p_relation,
  format(chains, p_relation, 'id > p_from', 'p_mark'), format(chains, p_relation, 'tid = any ($3) and id > $1', '$2'));
end $$;

-- Returns the last id before the latest p_wrote changes of this transaction. This function runs as
-- the owner of Plank and reads the outbox itself, not the table's view. It returns only an id, so
-- it reveals no content of changes.
create function plank.mark(p_wrote bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  return (select min(w.id) - 1 from (
    select id from plank.outbox where xid = pg_current_xact_id() order by xid desc, id desc limit p_wrote) w);
end $$;

-- Adds p_tids to the remembered places of a serializable transaction's captured events, and returns
-- all remembered places. Returns null if there are more than 200, or if p_tids is null because the
-- places are not known.
create function plank.keep_tids(p_relation integer, p_tids tid[]) returns tid[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  setting text := 'plank.tids_' || p_relation;
  kept    text := current_setting(setting, true);
  tids    tid[] := coalesce(nullif(nullif(kept, ''), 'many')::tid[], '{}') || p_tids;
begin
  if kept = 'many' or cardinality(tids) > 200 then
    perform set_config(setting, 'many', true);
    return null;
  end if;
  perform set_config(setting, tids::text, true);
  return tids;
end $$;

-- Called by a capture that is nested or runs after nested captures, when it has written p_wrote
-- events. In a serializable transaction, the caller also passes the last id before these events
-- (p_mark) and their places (p_tids).
create function plank.reorder(
  p_relation integer, p_depth integer, p_op text, p_wrote bigint, p_mark bigint default null, p_tids tid[] default null)
returns void language plpgsql set search_path = pg_catalog, pg_temp set array_nulls = on as $$
declare
  nested    bigint[] := nullif(current_setting('plank.nested_' || p_relation, true), '');
  reordered text := format('plank.reordered_%s_%s_%s', p_relation, p_depth, p_op);
  first_id  bigint;
  last_id   bigint;
  from_id   bigint;
  mark      bigint := coalesce(p_mark, plank.mark(p_wrote));  -- the capture's own events are the last ones
  tids      tid[] := case when p_tids is not null then plank.keep_tids(p_relation, p_tids) end;
begin
  for d in 1 .. coalesce(array_upper(nested, 1) / 3, 0) loop
    if d > p_depth then
      first_id := least(first_id, nested[3 * d - 2]);
      last_id := greatest(last_id, nested[3 * d - 1]);
    elsif d < p_depth then
      -- Events up to this id were captured by the statements around this one, before this statement
      -- ran. So these events happened before this statement.
      from_id := greatest(from_id, nested[3 * d]);
    end if;
  end loop;
  from_id := greatest(from_id, first_id, nullif(current_setting(reordered, true), '')::bigint);
  if last_id >= from_id then
    execute format('select plank.%I($1, $2, $3)', 'reorder_' || p_relation) into tids using from_id, mark, tids;
    if tids is not null then
      perform set_config('plank.tids_' || p_relation, tids::text, true);
    end if;
    perform set_config(reordered, plank.last_id()::text, true);
  end if;
  nested[3 * p_depth - 2] := coalesce(nested[3 * p_depth - 2], mark);
  nested[3 * p_depth - 1] := mark;
  nested[3 * p_depth] := plank.last_id();
  perform set_config('plank.nested_' || p_relation, nested::text, true);
end $$;
