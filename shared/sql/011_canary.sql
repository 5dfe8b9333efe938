-- For operators: canaries, and the numbers behind gauges.

-- Commits a marker as any writer commits a change. It is captured, sequenced, published and read by
-- every gateway; clients never get it. Its outbox row has the action C, no table (relation 0) and,
-- in place of an image, the time until the next canary.
create function plank.canary(p_every_ms integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  insert into plank.outbox (relation, action, new) values (0, 'C', json_build_object('every_ms', p_every_ms)::text);
  perform plank.ring();
end $$;

-- The values of the listener's gauges:
--   outbox_depth   changes that wait to be drained, counted up to 100,000. The count reads the part
--                  of the index that the next drain would read.
--   outbox_oldest  the age of the oldest of them, in seconds
--   notify_queue   how full the notification queue of Postgres is, from 0 to 1
--   log_oldest     the age of the oldest drain in the log, in seconds
--   log_events, log_bytes  the changes that the log holds, and their size
create function plank.gauges(
  out outbox_depth bigint, out outbox_oldest double precision, out notify_queue double precision,
  out log_oldest double precision, out log_events bigint, out log_bytes bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
  l      plank.leader;
  oldest plank.log;
begin
  select * into l from plank.leader;
  select count(*), coalesce(extract(epoch from clock_timestamp() - min(w.at)), 0) into outbox_depth, outbox_oldest
  from (select b.at from plank.between(l.snap, pg_current_snapshot()) b limit 100000) w;
  notify_queue := pg_notification_queue_usage();
  select * into oldest from plank.log where not purging order by first_seq limit 1;
  log_oldest := coalesce(extract(epoch from clock_timestamp() - oldest.drained_at), 0);
  log_events := l.next_seq - coalesce(oldest.first_seq, l.next_seq);
  log_bytes := l.log_bytes;
end $$;

-- Where changes are rare, the log may hold little but canaries, and purging these would make
-- positions invalid though no change was purged. So for a position past the retention, this returns
-- the oldest readable seq to continue after, if only canaries were purged in between; else null.
create function plank.advance_past_canaries(p_after bigint) returns bigint language sql stable as $$
  select e.oldest - 1 from plank.leader l cross join plank.extent() e
  where p_after < e.oldest - 1 and p_after >= l.purged_seq
    and not exists (select from plank.log where purging and not quiet and last_seq > p_after)
$$;
