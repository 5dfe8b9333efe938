-- Puts the changes that one transaction made to a row into the order in which they happened, where captures ran in another:
-- - a user's AFTER trigger that changes rows itself has its statements captured before the statement that fired it;
-- - of one statement's cascades, the capture of the deleted rows may run before that of the updated ones.
-- Each event's old image is the new image of the one before, so the events of a row are a path through its images, and it
-- is found as one. Where several paths are possible (a row went back to an image that it had), any is taken: each leads
-- from what the row was to what it is. While outer statements are still to be captured there may be none; then nothing
-- is done, as their capture looks at the same rows again.
--
-- All of this runs as the table's owner, and so through plank.outbox_<table>: the transaction's own changes of that table.
--
-- Only ids within one uncommitted transaction trade places, so readers know nothing of this. What it remembers is in
-- settings, local to the transaction and going back with its savepoints:
--   plank.nested_<table>                 for each depth d the last id before the first [3d - 2], before the last [3d - 1] and after
--                                        the last [3d] capture; first there is one deeper than 1
--   plank.settled_<table>_<depth>_<op>   the last id of the last capture that looked for deeper ones: what it saw was of its own
--                                        and earlier statements. For each operation, as one statement may make several
--                                        captures (ON CONFLICT, MERGE, cascades), and its nested ones come before them all.
--   plank.tids_<table>                   only where the transaction is serializable: where the captures are that the others tell of
--
-- Whatever a serializable transaction reads by an index, it locks the page of: in the outbox the one that everybody writes to, so that writers who
-- share nothing would fail. What it reads by place is locked by tuple, and its own tuples are not locked at all. So it keeps the places of its
-- captures, up to 200 of a table, as each capture looks at them all; beyond, it reads by the index.

-- The images that a row's events lead from: old ones more often than new ones, each as many times as it is so. None in a circle; more than
-- one where events are still to come.
create function plank.path_starts(p_old text[], p_new text[]) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(image), '{}') from (
    select image, sum(n) as balance from (select unnest(p_old) as image, 1 as n union all select unnest(p_new), -1) x group by image) b
  cross join generate_series(1, balance)
$$;

-- The events' numbers in an order in which each one's old image is the one before's new; null if there is none. Where that
-- is a circle, it begins and ends at p_standing.
create function plank.path(p_old text[], p_new text[], p_standing text) returns integer[]
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  n       integer := cardinality(p_old);
  starts  text[] := plank.path_starts(p_old, p_new);
  start   text := case when cardinality(starts) = 0 then p_standing else starts[1] end;
  used    boolean[] := array_fill(false, array[n]);
  trail   integer[] := '{}';  -- the events walked and not yet laid down; the walk stands at the last one's new image
  path    integer[] := '{}';
  at      text;
  step    integer;
begin
  -- Hierholzer: walk on while there is an unused event, else lay the last one down in front.
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

-- Ids are compared with this, so that what a transaction captures from now on is above it.
create function plank.last_id() returns bigint language sql volatile as $$
  select coalesce(pg_sequence_last_value('plank.outbox_id_seq'::regclass), 0)
$$;

-- (Re)writes plank.rechain_N(from, mark, tids) of a table: it orders the events with ids above `from` of each row that has one above `mark`.
-- A row with very many stays as it is. A function for each table, so that its plans are kept. Where places are given, it looks at no
-- others, and returns where those are then.
--
-- p_net is for keys whose uniqueness is checked late (deferrable): two rows may have one key for a while, and the events of both are
-- mixed. In the right order they are a path as well, or a row has only passed through the key that another one holds: then all of
-- the key's events become the one that leads from what was to what is.
create function plank.generate_rechain(p_relation integer) returns void language plpgsql as $$
declare
  chains text := $q$
    with events as (
      select id, key, old, new, action, tid from plank.outbox_%1$s where %2$s
    ), linked as (
      select *, lag(new) over w is not distinct from old or row_number() over w = 1 as links from events
      where key is not null and id > coalesce((select max(id) from events where action = 'T'), 0)
      window w as (partition by key order by id)
    )
    select key, array_agg(id order by id) as ids, array_agg(tid order by id) as tids, array_agg(old order by id) as old, array_agg(new order by id) as new
    from linked group by key
    having count(*) between 2 and 500 and max(id) > %3$s
       and (not bool_and(links) or (array_agg(old order by id))[1] is not distinct from (array_agg(new order by id desc))[1])$q$;
begin
  execute format($f$
    create or replace function plank.rechain_%1$s(p_from bigint, p_mark bigint, p_tids tid[], p_net boolean default false) returns tid[]
    language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off set enable_seqscan = off
    set enable_tidscan = on set enable_indexscan = on set enable_bitmapscan = on as $body$
    declare
      chains   refcursor;
      r        record;
      path     integer[];
      standing text;
      tids     tid[] := p_tids;
      held     text[];
      starts   text[];
      ends     text[];
      was      bigint[] := '{}';
      at       tid[] := '{}';
      becomes  bigint[] := '{}';
      moved    tid;
    begin
      begin
        if p_tids is null then
          open chains for %2$s;
        else
          -- of many places, the planner thinks that an index finds them sooner
          perform set_config('enable_indexscan', 'off', true), set_config('enable_bitmapscan', 'off', true);
          open chains for execute %3$L using p_from, p_mark, p_tids;
          perform set_config('enable_indexscan', 'on', true), set_config('enable_bitmapscan', 'on', true);
        end if;
        loop
          fetch chains into r;
          exit when not found;
          held := plank.current_%1$s(r.key);
          -- what comes next decides which of the rows keeps the key
          continue when cardinality(held) > 1;
          standing := held[1];
          path := plank.path(r.old, r.new, standing);
          if p_net and (path is null or r.new[path[cardinality(path)]] is distinct from standing) then
            starts := plank.path_starts(r.old, r.new);
            ends := plank.path_starts(r.new, r.old);
            -- what does not lead to what is there lacks changes which outer statements are still to tell
            continue when cardinality(starts) > 1 or cardinality(ends) = 1 and ends[1] is distinct from standing;
            if p_tids is null then
              delete from plank.outbox_%1$s where id = any (r.ids);
            else
              for i in 1 .. cardinality(r.tids) loop
                execute 'delete from plank.outbox_%1$s where tid = $1' using r.tids[i];
                p_tids := array_remove(p_tids, r.tids[i]);
              end loop;
            end if;
            if cardinality(starts) = 1 and starts[1] is distinct from standing then
              insert into plank.outbox_%1$s (relation, action, key, old, new)
              values (%1$s, case when starts[1] is null then 'I'::"char" when standing is null then 'D' else 'U' end, r.key, starts[1], standing)
              returning tid into moved;
              if p_tids is not null then
                p_tids := p_tids || moved;
              end if;
            end if;
            continue;
          end if;
          -- A path that leads elsewhere lacks changes which outer statements, or this one's other captures, are still to tell.
          continue when r.new[path[cardinality(path)]] is distinct from standing;
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
          -- An owner who may not look into his own table's schema, or whom a policy that is forced on him fails: no reason to fail a write.
          return tids;
      end;
      if cardinality(was) = 0 then
        return p_tids;
      end if;
      if p_tids is null then
        update plank.outbox_%1$s o set id = m.becomes from unnest(was, becomes) as m(was, becomes) where o.id > p_from and o.id = m.was;
        return null;
      end if;
      for i in 1 .. cardinality(at) loop
        execute 'update plank.outbox_%1$s set id = $1 where tid = $2 returning tid' into moved using becomes[i], at[i];
        p_tids := array_replace(p_tids, at[i], moved);
      end loop;
      return p_tids;
    end $body$
  $f$, p_relation, format(chains, p_relation, 'id > p_from', 'p_mark'), format(chains, p_relation, 'tid = any ($3) and id > $1', '$2'));
end $$;

-- The last id before this transaction's last p_wrote changes. It tells nothing of them, and so needs no view.
create function plank.mark(p_wrote bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  return (select min(w.id) - 1 from (
    select id from plank.outbox where xid = pg_current_xact_id() order by xid desc, id desc limit p_wrote) w);
end $$;

-- Remembers where a serializable transaction's captures are; p_tids null: where they are now cannot be told. Returns them all.
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

-- Called by a capture that wrote p_wrote rows; where the transaction is serializable, behind p_mark and to the places p_tids.
create function plank.settle(p_relation integer, p_depth integer, p_op text, p_wrote bigint, p_mark bigint default null, p_tids tid[] default null)
returns void language plpgsql set search_path = pg_catalog, pg_temp set array_nulls = on as $$
declare
  nested   bigint[] := nullif(current_setting('plank.nested_' || p_relation, true), '');
  settled  text := format('plank.settled_%s_%s_%s', p_relation, p_depth, p_op);
  first_id bigint;
  last_id  bigint;
  from_id  bigint;
  mark     bigint := coalesce(p_mark, plank.mark(p_wrote));  -- the capture's own are the last
  tids     tid[] := case when p_tids is not null then plank.keep_tids(p_relation, p_tids) end;
begin
  for d in 1 .. coalesce(array_upper(nested, 1) / 3, 0) loop
    if d > p_depth then
      first_id := least(first_id, nested[3 * d - 2]);
      last_id := greatest(last_id, nested[3 * d - 1]);
    elsif d < p_depth then
      -- what statements around this one have captured was before it
      from_id := greatest(from_id, nested[3 * d]);
    end if;
  end loop;
  from_id := greatest(from_id, first_id, nullif(current_setting(settled, true), '')::bigint);
  if last_id >= from_id then
    execute format('select plank.%I($1, $2, $3)', 'rechain_' || p_relation) into tids using from_id, mark, tids;
    if tids is not null then
      perform set_config('plank.tids_' || p_relation, tids::text, true);
    end if;
    perform set_config(settled, plank.last_id()::text, true);
  end if;
  nested[3 * p_depth - 2] := coalesce(nested[3 * p_depth - 2], mark);
  nested[3 * p_depth - 1] := mark;
  nested[3 * p_depth] := plank.last_id();
  perform set_config('plank.nested_' || p_relation, nested::text, true);
end $$;
