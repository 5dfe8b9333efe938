-- Leadership and epochs. Correctness depends on the term, which every drain's write checks. The
-- lease runs on this database's clock. It only says when a standby may try to lead.

-- The values that distinguish this history of the database from other histories. A promotion
-- changes the timeline. (The timeline is taken from the WAL file name, because
-- pg_control_checkpoint would lag behind.) A copy of the database has another oid. If files were
-- copied back or restored to a point in time, only the start time of the server differs.
create function plank.history(
  out system_id bigint, out timeline text, out database oid, out server_started_at timestamptz)
language sql stable as $$
  select s.system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
         (select oid from pg_database where datname = current_database()), pg_postmaster_start_time()
  from pg_control_system() s
$$;

-- Whether Plank wrote the leader's row in this database. False if the row came out of a dump.
create function plank.is_written_here(l plank.leader, p_table oid, p_xmin xid) returns boolean
language sql immutable as $$
  select l.table_oid = p_table and l.written_by::xid = p_xmin
$$;

-- Whether a listener has led since the current history began. If none has, the next listener that
-- leads determines how much of the log is valid.
create function plank.is_led() returns boolean language sql stable as $$
  select coalesce((select (e.system_id, e.timeline, e.database, e.server_started_at)
                        = (h.system_id, h.timeline, h.database, h.server_started_at)
                   from plank.epochs e cross join plank.history() h order by e.epoch desc limit 1), true)
         and (select plank.is_written_here(l, l.tableoid, l.xmin) from plank.leader l)
$$;

-- Makes the commit of this transaction flush to disk, even if the database is set not to flush
-- commits. Gateways act on the commit at once, so a crash must not undo it.
create function plank.flush_commit() returns void language sql as $$
  select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'
$$;

-- Takes the lead and returns the leader's row. If another listener holds a valid lease, returns
-- null.
--
-- A new epoch begins if the history of this database may differ from the history that the last
-- leader wrote. This is the case after each start of the server, because the server's files may be
-- older than the changes that gateways have seen. Every copy of the files contains its log, so
-- positions up to the end of that log stay valid. In a restored dump no position stays valid:
-- transaction ids mean nothing there, so all captured changes are discarded.
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
      -- All writers queue behind TRUNCATE's lock request, so the request must not wait for long
      -- (lock_timeout). If a long transaction that has written keeps the request waiting, the rows
      -- that the snapshot sees are deleted instead. The first drain finds the other rows.
      begin
        truncate plank.outbox, plank.log, plank.chunks;
        l.snap := pg_current_snapshot();
      exception when lock_not_available then
        with captured as (delete from plank.outbox), drained as (delete from plank.log)
        select pg_current_snapshot() into l.snap;
      end;
      l.log_bytes := 0;
    end if;
    insert into plank.epochs (epoch, system_id, timeline, database, server_started_at, forked_at)
    values (l.epoch, now.system_id, now.timeline, now.database, now.server_started_at,
            case when is_dump then 0 else l.next_seq - 1 end);
  end if;
  update plank.leader set term = term + 1, holder = p_holder, expires_at = clock_timestamp() + p_lease,
    epoch = l.epoch, snap = l.snap, log_bytes = l.log_bytes, table_oid = tableoid, written_by = pg_current_xact_id()
  returning * into l;
  return l;
end $$;

-- Begins an epoch with a number above p_above, after the seq p_at (null: the newest seq). The
-- listener calls this if the fan-out holds another history than the log. SQLSTATE PLK01: the term
-- is over.
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
  insert into plank.epochs (epoch, system_id, timeline, database, server_started_at, forked_at)
  select l.epoch, h.*, coalesce(p_at, l.next_seq - 1) from plank.history() h;
end $$;

-- Extends the lease and returns true. Returns false if another listener leads now, or if the
-- leader's row came out of a dump.
create function plank.renew(p_term bigint, p_lease interval) returns boolean language sql as $$
  with kept as (
    update plank.leader l set expires_at = clock_timestamp() + p_lease, written_by = pg_current_xact_id()
    where term = p_term and plank.is_written_here(l, l.tableoid, l.xmin) returning true)
  select exists (select from kept)
$$;

-- Gives the lead back, so that a standby takes the lead at once.
create function plank.resign(p_term bigint) returns void language sql as $$
  update plank.leader l set expires_at = '-infinity', holder = null, written_by = pg_current_xact_id()
  where term = p_term and plank.is_written_here(l, l.tableoid, l.xmin)
$$;
