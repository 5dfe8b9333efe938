-- Puts the changes of nested statements into the order in which they happened.
--
-- When a user's AFTER trigger changes rows itself, its statement's capture runs before the capture of the statement that
-- fired it: for a row that both changed, the outbox would show the second change first. So a capture that finds deeper
-- ones before it in its transaction looks at the rows which both changed, and gives its own event the place at which the
-- images chain: each event's old image is the new image of the one before. Where more than one place chains (an insert
-- that a trigger deleted again looks like a delete followed by an insert), the row as it stands now decides.
--
-- Only ids within one uncommitted transaction trade places, so readers know nothing of this. The setting plank.nested
-- carries "depth first-id" of the deepest captures that no outer statement has settled yet; it is local to the
-- transaction and goes back with its savepoints.

-- For each row that this statement (p_depth, ids above p_mark) and deeper ones (ids p_first … p_mark) changed: the first
-- of the deeper events that this statement's own must stand before, and whether it could also stand behind them all.
create function plank.nested_places(p_relation integer, p_depth integer, p_first bigint, p_mark bigint)
returns table (mine bigint, key text, old text, new text, before_id bigint, ambiguous boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with own as (
    select id, key, old, new from plank.outbox
    where xid = pg_current_xact_id() and id > p_mark and relation = p_relation and depth = p_depth and key is not null
  ), deeper as (
    select o.id as mine, o.key, o.old, o.new, e.id,
           e.old is not distinct from o.new
             and (row_number() over w = 1 or lag(e.new) over w is not distinct from o.old) as chains_before,
           lead(e.id) over w is null and e.new is not distinct from o.old as chains_behind
    from plank.outbox e join own o on o.key = e.key
    where e.xid = pg_current_xact_id() and e.id > p_first and e.id <= p_mark and e.relation = p_relation and e.depth > p_depth
    window w as (partition by e.key order by e.id)
  )
  select mine, key, old, new, min(id) filter (where chains_before), bool_or(chains_behind) and old is distinct from new
  from deeper group by mine, key, old, new having bool_or(chains_before)
$$;

create function plank.settle(p_relation integer, p_depth integer, p_mark bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
declare
  nested      text := coalesce(current_setting('plank.nested', true), '');
  inner_depth integer := nullif(split_part(nested, ' ', 1), '')::integer;
  inner_first bigint := nullif(split_part(nested, ' ', 2), '')::bigint;
  spot        record;
  standing    text;
  moving      bigint[] := '{}';
begin
  if inner_depth is null or inner_depth <= p_depth then
    if p_depth > 1 and inner_depth is distinct from p_depth then
      perform set_config('plank.nested', format('%s %s', p_depth, coalesce(inner_first, p_mark)), true);
    end if;
    return;
  end if;

  for spot in select * from plank.nested_places(p_relation, p_depth, inner_first, p_mark) p where p.ambiguous loop
    execute format('select plank.%I($1)', 'current_' || p_relation) into standing using spot.key;
    if standing is distinct from spot.new then
      moving := moving || spot.mine;
    end if;
  end loop;

  -- Our event takes the place of the first that it goes before; that one and all behind it move up by one.
  update plank.outbox o set id = moved.to_id
  from (
    select e.id, case when e.id = p.mine then p.before_id else lead(e.id) over (partition by p.mine order by e.id) end as to_id
    from plank.nested_places(p_relation, p_depth, inner_first, p_mark) p
    join plank.outbox e on e.key = p.key
    where e.xid = pg_current_xact_id() and e.relation = p_relation
      and (e.id = p.mine or (e.id >= p.before_id and e.id <= p_mark and e.depth > p_depth))
      and (not p.ambiguous or p.mine = any (moving))
  ) moved
  where o.xid = pg_current_xact_id() and o.id = moved.id;

  perform set_config('plank.nested', case when p_depth > 1 then format('%s %s', p_depth, inner_first) else '' end, true);
end $$;

-- Where one statement's cascades both update and delete rows of a table (two foreign keys), the capture of the deleted ones
-- may run first, and a row that was updated before it was deleted has its events reversed. An update of a row that is gone
-- cannot be: its DELETE (the last one of its key, with an id above p_from) goes behind all its updates.
create function plank.settle_deleted(p_relation integer, p_from bigint) returns void
language sql set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
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
