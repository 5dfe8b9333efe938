-- For operators: canaries, and the values of gauges.

-- Writes a canary: a marker in the outbox that is committed as any writer commits a change. The
-- canary gets a seq, is published and is read by every gateway, but clients never get it. Its
-- outbox row has the action C and no table (relation 0). The column "new" has the time until the
-- next canary instead of an image.
create function plank.canary(p_every_ms integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  insert into plank.outbox (relation, action, new) values (0, 'C', json_build_object('every_ms', p_every_ms)::text);
  perform plank.ring();
end $$;

-- The values of the listener's gauges:
--   outbox_depth   the number of changes that wait to be drained, counted up to 100,000. The count
--                  reads the part of the index that the next drain would read.
--   outbox_oldest  the age of the oldest change that was counted, in seconds
--   notify_queue   how full the notification queue of Postgres is, from 0 to 1
--   log_oldest     the age of the oldest drain in the log, in seconds
--   log_events     the number of changes that the log holds
--   log_bytes      their size in bytes
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

-- Where changes are rare, most of the log may be canaries. Purging canaries would make positions
-- invalid although no change was purged. So for a position that is past the retention, this
-- function checks what was purged after the position. If only canaries were purged, it returns the
-- oldest seq after which a client can continue; else null.
create function plank.advance_past_canaries(p_after bigint) returns bigint language sql stable as $$
  select e.oldest - 1 from plank.leader l cross join plank.extent() e
  where p_after < e.oldest - 1 and p_after >= l.purged_seq
    and not exists (select from plank.log where purging and not quiet and last_seq > p_after)
$$;
