-- The drain. It gives seqs to the changes that became visible since the last drain, and records
-- them in one row of the log.
--
-- A change "became visible" between two snapshots if the new snapshot sees the change's transaction
-- and the old snapshot does not. Comparing ids or transaction ids cannot find these changes,
-- because neither is given in commit order. The difference of two snapshots is exact, waits for no
-- transaction and marks no row.
--
-- Order: the changes of a transaction stay together, and transactions are ordered by their highest
-- id. So two transactions that change the same row are in the right order: the first one commits
-- before the second one gets the row's lock, so the first one's highest id is the lower one.
--
-- The old snapshot lists the transactions that were in progress. Only the listed transactions that
-- have ended since then are looked up. So a long transaction costs nothing until it commits.

create function plank.between(p_before pg_snapshot, p_upto pg_snapshot)
returns table (id bigint, xid xid8, at timestamptz, relation integer, action "char", key text, new text, old text)
language sql stable as $$
  select o.id, o.xid, o.at, o.relation, o.action, o.key, o.new, o.old from plank.outbox o
  where o.xid >= pg_snapshot_xmax(p_before) and o.xid < pg_snapshot_xmax(p_upto)
    and pg_visible_in_snapshot(o.xid, p_upto)
  union all
  select o.id, o.xid, o.at, o.relation, o.action, o.key, o.new, o.old from plank.outbox o
  where o.xid = any (array(select x from pg_snapshot_xip(p_before) x where pg_visible_in_snapshot(x, p_upto)))
$$;

-- How many bytes a change counts where a limit in bytes is checked.
create function plank.weight(p_new text, p_old text) returns bigint language sql immutable as $$
  select 100::bigint + coalesce(octet_length(p_new), 0) + coalesce(octet_length(p_old), 0)
$$;

-- Writes the log row of a large drain, and the chunks that say where the drain's changes are.
create function plank.log_chunked(
  p_first_seq bigint, p_before pg_snapshot, p_upto pg_snapshot, out n bigint, out size bigint)
language sql set work_mem = '64MB' as $$
  with events as (
    -- leaves the images out, so that only numbers are sorted
    select b.*, max(b.id) over (partition by b.xid) as last_id
    from (select id, xid, plank.weight(new, old) as weight from plank.between(p_before, p_upto) offset 0) b
  ), placed as (
    select *, p_first_seq - 1 + row_number() over w as seq, (sum(weight) over w)::bigint / (1024 * 1024) as chunk
    from events window w as (order by last_id, id)
  ), parts as (
    select chunk, xid, last_id, min(seq) as first_seq, max(seq) as last_seq,
           min(id) as from_id, max(id) as upto_id, sum(weight) as size
    from placed group by chunk, xid, last_id
  ), chunks as (
    select min(first_seq) as first_seq, max(last_seq) as last_seq,
           array_agg(xid order by first_seq) as xids, array_agg(last_id order by first_seq) as last_ids,
           array_agg(from_id order by first_seq) as from_ids, array_agg(upto_id order by first_seq) as upto_ids,
           sum(size) as size
    from parts group by chunk
  ), kept as (
    insert into plank.chunks
    select p_first_seq, first_seq, last_seq, xids, last_ids, from_ids, upto_ids from chunks
  )
  insert into plank.log (first_seq, last_seq, before_snap, upto_snap, bytes, chunked)
  select p_first_seq, max(last_seq), p_before, p_upto, sum(size), true from chunks
  returning last_seq - first_seq + 1, bytes
$$;

-- Packs a change in the format of batches (shared/log/batch.ts), in which all texts are UTF-8.
create function plank.pack(
  relation integer, action "char", last boolean, xid xid8, at timestamptz, key bytea, new bytea, old bytea)
returns bytea language sql stable as $$
  select int4send(relation)
    || set_byte(decode('00', 'hex'), 0, ascii(action::text) + case when last then 128 else 0 end)
    || xid8send(xid) || float8send(date_part('epoch', at) * 1000)
    || int4send(coalesce(octet_length(key), -1)) || int4send(coalesce(octet_length(new), -1))
    || int4send(coalesce(octet_length(old), -1))
    || coalesce(key, '') || coalesce(new, '') || coalesce(old, '')
$$;

-- One drain. Returns
--   first_seq, last_seq  the seqs of the new changes; all columns are null if there are none
--   transactions         the number of transactions of these changes
--   first_at_ms          when the first of these changes was captured, in ms since 1970
--   packed               24 bytes of room for a batch's header, then the changes in order, in the
--                        format of batches, so that no process has to convert them later
-- If there are more than p_limit changes or more than 16 MB, only last_seq is set. The listener
-- then reads the changes by plank.read_log. SQLSTATE PLK01: the term is over, as another listener
-- leads or a dump was restored.
--
-- One statement reads and one statement writes, because starting statements is most of the cost of
-- draining a single change. The read locks nothing, so a drain that finds nothing writes nothing.
-- The write checks that the leader's row has not changed since the read; if the row has changed,
-- the drain fails. With p_holds, the leader's row is locked from the start. Then no other listener
-- takes the lead (plank.lead) during the drain, even if the lease ends.
create function plank.drain(p_term bigint, p_limit integer, p_lease interval, p_holds boolean,
  out first_seq bigint, out last_seq bigint, out transactions bigint, out first_at_ms float8, out packed bytea)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
-- The queries are always the same, and planning them again took an eighth of a drain's CPU time. So
-- the plan is generic: Postgres makes the plan once and uses it for tables of any size. Parallel
-- workers are off, because such a plan might start them for a drain of one change.
set plan_cache_mode = force_generic_plan set max_parallel_workers_per_gather = 0 as $$
#variable_conflict use_column
declare
  d record;
begin
  if p_holds then
    perform from plank.leader for update;
  end if;
  -- This must be one statement, so that the rows are read with the snapshot that
  -- pg_current_snapshot() returns. Each "offset 0" keeps Postgres from evaluating an expression
  -- again at each place that uses it.
  select l.term, l.holder, l.next_seq, l.snap, l.expires_at,
         l.table_oid = l.tableoid and l.written_by::xid = l.xmin as is_ours, s.upto, c.*
  into d
  from plank.leader l cross join (select pg_current_snapshot() as upto offset 0) s cross join lateral (
    with changes as materialized (
      select * from plank.between(l.snap, s.upto) limit p_limit + 1
    ), total as (
      select count(*) as n, coalesce(sum(plank.weight(new, old)), 0) as size from changes
    )
    select n, size, n > p_limit or size > 16 * 1024 * 1024 as is_large, content.*
    from total cross join lateral (
      select count(*) filter (where id = last_id) as transactions, date_part('epoch', min(at)) * 1000 as first_at_ms,
             decode(repeat('00', 24), 'hex')
               || string_agg(plank.pack(relation, action, id = last_id, xid, at, key, new, old), '') as packed
      from (
        select id, last_id, relation, action, xid, at,
               convert_to(key, 'UTF8') as key, convert_to(new, 'UTF8') as new, convert_to(old, 'UTF8') as old
        from (
          select *, max(id) over (partition by xid) as last_id from changes
          where n <= p_limit and size <= 16 * 1024 * 1024
          order by last_id, id offset 0
        ) o offset 0
      ) e
    ) content
  ) c;

  if d.term <> p_term then
    raise exception 'plank: term % is over, % leads with term %', p_term, d.holder, d.term using errcode = 'PLK01';
  end if;
  if not d.is_ours then
    raise exception 'plank: a dump was restored, which ends term %', p_term using errcode = 'PLK01';
  end if;
  if d.n = 0 then
    -- The leader's row is written only in two cases: the lease must be extended, or the new
    -- snapshot lists a transaction in progress that is newer than the old snapshot. In the second
    -- case, every later drain would otherwise look at this transaction again.
    if d.expires_at < clock_timestamp() + p_lease / 2
       or exists (select from pg_snapshot_xip(d.upto) x where x >= pg_snapshot_xmax(d.snap)) then
      update plank.leader
      set snap = d.upto, expires_at = clock_timestamp() + p_lease, written_by = pg_current_xact_id()
      where term = p_term and snap::text = d.snap::text;
    end if;
    return;
  end if;

  -- plank.flush_commit makes the same check, but calling it costs a statement
  if current_setting('synchronous_commit') = 'off' then
    perform plank.flush_commit();
  end if;
  if d.is_large then
    -- the leader's row is locked first, because plank.log_chunked takes long
    perform from plank.leader where term = p_term and snap::text = d.snap::text for update;
    if found then
      select c.n, c.size into d.n, d.size from plank.log_chunked(d.next_seq, d.snap, d.upto) c;
      update plank.leader set next_seq = d.next_seq + d.n, log_bytes = log_bytes + d.size, snap = d.upto,
        expires_at = clock_timestamp() + p_lease, written_by = pg_current_xact_id();
    end if;
  else
    with written as (
      update plank.leader set next_seq = d.next_seq + d.n, log_bytes = log_bytes + d.size, snap = d.upto,
        expires_at = clock_timestamp() + p_lease, written_by = pg_current_xact_id()
      where term = p_term and snap::text = d.snap::text
      returning d.next_seq as first_seq
    )
    insert into plank.log (first_seq, last_seq, before_snap, upto_snap, bytes)
    select first_seq, first_seq + d.n - 1, d.snap, d.upto, d.size from written;
    first_seq := d.next_seq;
    transactions := d.transactions;
    first_at_ms := d.first_at_ms;
    packed := d.packed;
  end if;
  if not found then
    raise exception 'plank: another session leads, or has drained, since this drain began' using errcode = 'PLK01';
  end if;
  last_seq := d.next_seq + d.n - 1;
end $$;

-- Reads history: the changes after the seq p_after, in order, with the same seqs and the same bytes
-- as when they were drained. Callers should use a limit or a cursor. If the history has become
-- another one and no listener has led since, returns no rows (plank.is_led).
--
-- An image of more than 32 MB is returned as a partial image without columns, because no process
-- could hold it. Capture makes no such image, as plank.configure allows no bound above 32 MB. Such
-- an image was inserted by hand, or before Plank had a bound. A drain never returns such an image,
-- because the image alone is more than the drain's limit of 16 MB.
create function plank.read_log(p_after bigint)
returns table (
  seq bigint, xid xid8, at timestamptz, relation integer, action "char", key text, new text, old text, last boolean)
language sql stable as $$
  select e.seq, e.xid, e.at, e.relation, e.action, case when octet_length(e.key) > 33554432 then null else e.key end,
         case when octet_length(e.new) > 33554432 then ' {}' else e.new end,
         case when octet_length(e.old) > 33554432 then ' {}' else e.old end, e.id = e.last_id
  from (select * from plank.log where last_seq > p_after and not purging order by first_seq offset 0) l
  cross join lateral (
    (select l.first_seq - 1 + row_number() over (order by b.last_id, b.id) as seq, b.*
     from (select c.*, max(c.id) over (partition by c.xid) as last_id
           from plank.between(l.before_snap, l.upto_snap) c where not l.chunked) b
     order by b.last_id, b.id)
    union all
    (select b.*
     from (select * from plank.chunks c
           where l.chunked and c.log_seq = l.first_seq and c.last_seq > p_after order by c.first_seq offset 0) c
     cross join lateral (
       select c.first_seq - 1 + row_number() over (order by p.last_id, o.id) as seq,
              o.id, o.xid, o.at, o.relation, o.action, o.key, o.new, o.old, p.last_id
       from unnest(c.xids, c.last_ids, c.from_ids, c.upto_ids) p(xid, last_id, from_id, upto_id)
       join plank.outbox o on o.xid = p.xid and o.id between p.from_id and p.upto_id
       order by p.last_id, o.id
     ) b)
  ) e
  where e.seq > p_after and (select plank.is_led())
$$;

-- The range of positions that can be read: positions after any seq from oldest - 1 to newest. If
-- is_led is false, nothing can be read. holder: the listener that holds a valid lease; null if no
-- listener leads.
create function plank.extent(
  out epoch integer, out oldest bigint, out newest bigint, out is_led boolean, out holder text)
language sql stable as $$
  select l.epoch, coalesce((select min(first_seq) from plank.log where not purging), l.next_seq), l.next_seq - 1,
         led.is_led, case when led.is_led and l.expires_at > clock_timestamp() then l.holder end
  from plank.leader l cross join plank.is_led() led(is_led)
$$;
