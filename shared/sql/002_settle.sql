-- Puts the changes of nested statements into the order in which they happened.
--
-- When a user's AFTER trigger changes rows itself, its statement's capture runs before the capture of the statement that
-- fired it: for a row that both changed, the outbox would show the second change first. So a capture that finds deeper
-- ones before it in its transaction looks at the rows which both changed, and gives its own event the place at which the
-- images chain: each event's old image is the new image of the one before. Where more than one place chains (an insert
-- that a trigger deleted again looks like a delete followed by an insert), the row as it stands now decides.
--
-- Only ids within one uncommitted transaction trade places, so readers know nothing of this. What it remembers is in
-- settings, local to the transaction and going back with its savepoints:
--   plank.nested_<table>                  for each depth d > 1 the last id before the first [2d - 1] and before the last [2d] capture
--   plank.settled_<table>_<depth>_<op>    the last id of the last capture that looked for deeper ones: what it saw was of its own
--                                         and earlier statements. For each operation, as one statement may make several
--                                         captures (ON CONFLICT, MERGE, cascades), and its nested ones come before them all.

-- For each row that this statement (p_depth, ids above p_mark) and deeper ones (ids above p_from) changed: the first of the
-- deeper events that this statement's own can stand before, and whether it could also stay behind them all. Rows with
-- several events of this statement (two cascades) stay as they are. An event can stand where it links what is before it to
-- what is behind it, and, as outer statements are still to come, where nothing links these yet.
create function plank.nested_places(p_relation integer, p_depth integer, p_from bigint, p_mark bigint)
returns table (mine bigint, key text, new text, before_id bigint, ambiguous boolean)
language sql stable set search_path = pg_catalog, pg_temp set enable_nestloop = off set enable_seqscan = off as $$
  with events as (
    select id, depth, key, old, new from plank.outbox
    where xid = pg_current_xact_id() and id > p_from and relation = p_relation and key is not null
  ), own as (
    select min(id) as mine, key, min(old) as old, min(new) as new from events
    where id > p_mark and depth = p_depth group by key having count(*) = 1
  ), places as (
    select o.mine, o.key, o.old, o.new, e.id,
           e.depth > p_depth and e.old is not distinct from o.new
             and (row_number() over w = 1 or lag(e.new) over w is not distinct from o.old or lag(e.new) over w is distinct from e.old) as chains_before,
           lead(e.id) over w is null and e.new is not distinct from o.old as chains_behind
    from events e join own o on o.key = e.key and e.id < o.mine
    window w as (partition by e.key order by e.id)
  )
  select mine, key, new, min(id) filter (where chains_before), bool_or(chains_behind) and old is distinct from new
  from places group by mine, key, old, new having bool_or(chains_before)
$$;

create function plank.settle(p_relation integer, p_depth integer, p_op text, p_mark bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off set enable_seqscan = off as $$
declare
  nested   bigint[] := nullif(current_setting('plank.nested_' || p_relation, true), '');
  settled  text := format('plank.settled_%s_%s_%s', p_relation, p_depth, p_op);
  from_id  bigint;
  last_id  bigint;
  spot     record;
  standing text;
  keys     text[] := '{}';
  moving   bigint[] := '{}';
  places   bigint[] := '{}';
begin
  for d in p_depth + 1 .. coalesce(array_upper(nested, 1) / 2, 0) loop
    from_id := least(from_id, nested[2 * d - 1]);
    last_id := greatest(last_id, nested[2 * d]);
  end loop;
  if p_depth > 1 then
    nested[2 * p_depth - 1] := coalesce(nested[2 * p_depth - 1], p_mark);
    nested[2 * p_depth] := p_mark;
    perform set_config('plank.nested_' || p_relation, nested::text, true);
  end if;
  from_id := greatest(from_id, nullif(current_setting(settled, true), '')::bigint);
  if last_id is null or last_id < from_id then
    return;
  end if;

  for spot in select * from plank.nested_places(p_relation, p_depth, from_id, p_mark) loop
    if spot.ambiguous then
      execute format('select plank.%I($1)', 'current_' || p_relation) into standing using spot.key;
      continue when standing is not distinct from spot.new;
    end if;
    keys := keys || spot.key;
    moving := moving || spot.mine;
    places := places || spot.before_id;
  end loop;

  -- Our event takes the place of the first that it goes before; that one and all behind it move up by one.
  if cardinality(keys) > 0 then
    update plank.outbox o set id = moved.to_id
    from (
      select e.id, case when e.id = p.mine then p.before_id else lead(e.id) over (partition by e.key order by e.id) end as to_id
      from unnest(keys, moving, places) as p(key, mine, before_id) join plank.outbox e on e.key = p.key
      where e.xid = pg_current_xact_id() and e.id > from_id and e.relation = p_relation and e.id between p.before_id and p.mine
    ) moved
    where o.xid = pg_current_xact_id() and o.id > from_id and o.id = moved.id;
  end if;

  perform set_config(settled, (select last_value from plank.outbox_id_seq)::text, true);
end $$;

-- Where one statement's cascades both update and delete rows of a table (two foreign keys), the capture of the deleted ones
-- may run first, and a row that was updated before it was deleted has its events reversed. An update of a row that is gone
-- cannot be: its DELETE (the last one of its key, with an id above p_from) goes behind all its updates.
create function plank.settle_deleted(p_relation integer, p_from bigint) returns void
language sql set search_path = pg_catalog, pg_temp set enable_nestloop = off set enable_seqscan = off as $$
  with gone as (
    select key, max(id) as id from plank.outbox
    where xid = pg_current_xact_id() and id > p_from and relation = p_relation and action = 'D' group by key
  ), reversed as (
    select e.id, case when e.action = 'D' then max(e.id) over k else lag(e.id) over (partition by e.key order by e.id) end as to_id,
           bool_and(e.action in ('D', 'U')) over k and count(*) over k > 1 as wrong
    from plank.outbox e join gone g on g.key = e.key
    where e.xid = pg_current_xact_id() and e.id >= g.id and e.id > p_from and e.relation = p_relation
    window k as (partition by e.key)
  )
  update plank.outbox o set id = r.to_id from reversed r
  where o.xid = pg_current_xact_id() and o.id = r.id and r.wrong
$$;
