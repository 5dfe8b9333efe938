-- What operators see: canaries, and the numbers behind gauges.

-- Commits a marker as any writer commits a change: captured, sequenced, published, read by every gateway, shown to no client.
-- Its row has the action C, no table (relation 0) and, as its image, when the next one follows.
create function plank.canary(p_every_ms integer) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  insert into plank.outbox (relation, action, new) values (0, 'C', json_build_object('every_ms', p_every_ms)::text);
  perform plank.ring();
end $$;

-- What waits to be drained (counted up to 100,000: the next range of the index, as a drain would read it), how old the oldest of
-- it is in seconds, how full the notification queue is, and what the log keeps.
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

-- A position past the retention from which nothing but canaries was forgotten is as good as the oldest one that can be read, which
-- this returns; else null. Where changes are rare, canaries alone would make positions void.
create function plank.lift(p_after bigint) returns bigint language sql stable as $$
  select e.oldest - 1 from plank.leader l cross join plank.extent() e
  where p_after < e.oldest - 1 and p_after >= l.forgotten_seq
    and not exists (select from plank.log where purging and not quiet and last_seq > p_after)
$$;
