-- Leadership and epochs. Correctness rests on the term, which a drain's write checks; the lease, on this
-- database's clock, only tells a standby when to try.

-- This server's own name for the history it writes. A promotion changes the timeline (pg_control_checkpoint would lag behind it).
create function plank.history(out system_id bigint, out timeline text) language sql stable as $$
  select s.system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) from pg_control_system() s
$$;

-- What a crash must not take back, as others have been told of it: this transaction's commit is flushed also where the database's is not.
create function plank.flush_commit() returns void language sql as $$
  select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'
$$;

-- Takes the lead if nobody holds a valid lease; null if somebody does. A new epoch begins where the history is no longer
-- the one that the last leader wrote: after a promotion clients up to the fork may go on, after a move to another cluster
-- (a restored dump, an upgrade) transaction ids mean nothing any more, so what was captured is void.
create function plank.lead(p_holder text, p_lease interval) returns plank.leader
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  l   plank.leader;
  was plank.epochs;
  now record;
begin
  select * into l from plank.leader
  where expires_at < clock_timestamp() or expires_at > clock_timestamp() + p_lease * 10 or holder = p_holder
  for update skip locked;
  if not found then
    return null;
  end if;
  perform plank.flush_commit();
  select * into now from plank.history();
  select * into was from plank.epochs order by epoch desc limit 1;
  if was.epoch is null or was.system_id <> now.system_id or was.timeline <> now.timeline then
    if was.epoch is not null then
      l.epoch := greatest(was.epoch + 1, plank.new_epoch());
    end if;
    if was.system_id <> now.system_id then
      -- All writers queue behind one who waits for this lock: not for long. Where a transaction that has written goes on and on, rows are
      -- deleted, those that the snapshot sees: what is not among them, the first drain finds.
      begin
        truncate plank.outbox, plank.log, plank.chunks;
        l.snap := pg_current_snapshot();
      exception when lock_not_available then
        with captured as (delete from plank.outbox), drained as (delete from plank.log) select pg_current_snapshot() into l.snap;
      end;
      l.log_bytes := 0;
    end if;
    insert into plank.epochs (epoch, system_id, timeline, forked_at)
    values (l.epoch, now.system_id, now.timeline, case when was.system_id = now.system_id then l.next_seq - 1 else 0 end);
  end if;
  update plank.leader set term = term + 1, holder = p_holder, expires_at = clock_timestamp() + p_lease, epoch = l.epoch, snap = l.snap, log_bytes = l.log_bytes
  returning * into l;
  return l;
end $$;

-- Extends the lease. False: somebody else leads now.
create function plank.renew(p_term bigint, p_lease interval) returns boolean language sql as $$
  with kept as (update plank.leader set expires_at = clock_timestamp() + p_lease where term = p_term returning true)
  select exists (select from kept)
$$;

create function plank.resign(p_term bigint) returns void language sql as $$
  update plank.leader set expires_at = '-infinity', holder = null where term = p_term
$$;
