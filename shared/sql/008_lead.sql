-- Leadership and epochs. Correctness rests on the term, which a drain's write checks; the lease, on this
-- database's clock, only tells a standby when to try.

-- What the history that is written here is told from others by. A promotion changes the timeline (pg_control_checkpoint would lag behind
-- it), a copy of the database its oid. Files that are copied back, or restored to a point in time, tell of that by nothing but another
-- start of the server.
create function plank.history(out system_id bigint, out timeline text, out database oid, out server_started_at timestamptz) language sql stable as $$
  select s.system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), (select oid from pg_database where datname = current_database()),
         pg_postmaster_start_time()
  from pg_control_system() s
$$;

-- Whether the leader's row is as Plank has written it, and not as a dump had it.
create function plank.is_written_here(l plank.leader, p_table oid, p_xmin xid) returns boolean language sql immutable as $$
  select l.table_oid = p_table and l.written_by::xid = p_xmin
$$;

-- Whether somebody has led since this history became another one. If not, nobody knows yet what the log is worth.
create function plank.is_led() returns boolean language sql stable as $$
  select coalesce((select (e.system_id, e.timeline, e.database, e.server_started_at) = (h.system_id, h.timeline, h.database, h.server_started_at)
                   from plank.epochs e cross join plank.history() h order by e.epoch desc limit 1), true)
         and (select plank.is_written_here(l, l.tableoid, l.xmin) from plank.leader l)
$$;

-- What a crash must not take back, as others have been told of it: this transaction's commit is flushed also where the database's is not.
create function plank.flush_commit() returns void language sql as $$
  select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'
$$;

-- Takes the lead if nobody holds a valid lease; null if somebody does. A new epoch begins where the history is no longer surely the one that
-- the last leader wrote: with each start of the server, as what it starts on may be older than what others have seen. What is in the
-- log is kept by all that is made of its files, so positions up to its end stay valid. Of a dump they do not: transaction
-- ids mean nothing any more, so what was captured is void.
create function plank.lead(p_holder text, p_lease interval) returns plank.leader
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  l       plank.leader;
  was     plank.epochs;
  now     record;
  is_dump boolean;
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
  is_dump := coalesce(was.system_id <> now.system_id, false)
          or not (select plank.is_written_here(r, r.tableoid, r.xmin) from plank.leader r);
  if is_dump or was.epoch is null
     or (was.timeline, was.database, was.server_started_at) <> (now.timeline, now.database, now.server_started_at) then
    if is_dump or was.epoch is not null then
      l.epoch := plank.new_epoch(greatest(was.epoch, l.epoch));
    end if;
    if is_dump then
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
    insert into plank.epochs (epoch, system_id, timeline, database, server_started_at, forked_at)
    values (l.epoch, now.system_id, now.timeline, now.database, now.server_started_at, case when is_dump then 0 else l.next_seq - 1 end);
  end if;
  update plank.leader set term = term + 1, holder = p_holder, expires_at = clock_timestamp() + p_lease, epoch = l.epoch, snap = l.snap,
    log_bytes = l.log_bytes, table_oid = tableoid, written_by = pg_current_xact_id()
  returning * into l;
  return l;
end $$;

-- Begins an epoch above p_above behind the seq p_at (null: the newest), where what others have of this one is not what the log has. SQLSTATE PLK01: the term is over.
create function plank.begin_epoch(p_term bigint, p_above integer, p_at bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  l plank.leader;
begin
  perform plank.flush_commit();
  update plank.leader set epoch = plank.new_epoch(greatest(epoch, p_above)), written_by = pg_current_xact_id()
  where term = p_term and plank.is_written_here(leader, tableoid, xmin) returning * into l;
  if not found then
    raise exception 'plank: term % is over', p_term using errcode = 'PLK01';
  end if;
  insert into plank.epochs (epoch, system_id, timeline, database, server_started_at, forked_at) select l.epoch, h.*, coalesce(p_at, l.next_seq - 1) from plank.history() h;
end $$;

-- Extends the lease. False: somebody else leads now, or the history is another.
create function plank.renew(p_term bigint, p_lease interval) returns boolean language sql as $$
  with kept as (
    update plank.leader l set expires_at = clock_timestamp() + p_lease, written_by = pg_current_xact_id()
    where term = p_term and plank.is_written_here(l, l.tableoid, l.xmin) returning true)
  select exists (select from kept)
$$;

create function plank.resign(p_term bigint) returns void language sql as $$
  update plank.leader l set expires_at = '-infinity', holder = null, written_by = pg_current_xact_id()
  where term = p_term and plank.is_written_here(l, l.tableoid, l.xmin)
$$;
