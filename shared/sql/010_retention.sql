-- Purges log rows that are past the retention time or size, and the outbox rows that these log rows
-- cover. One call marks at most 1,000 log rows and deletes at most p_batch outbox rows. Log rows
-- are first marked as purging, so that no reader starts to read them. They are deleted when all
-- outbox rows that they cover are deleted. Returns the number of deleted outbox rows, or 1 if only
-- log rows were deleted, or 0 if nothing is old enough. SQLSTATE PLK01: the term is over.

create function plank.purge(p_term bigint, p_keep interval, p_keep_bytes bigint, p_batch integer) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  oldest plank.log;
  newest plank.log;
  deleted bigint;
begin
  if not exists (
    select from plank.leader l where l.term = p_term and plank.is_written_here(l, l.tableoid, l.xmin)) then
    raise exception 'plank: term % is over', p_term using errcode = 'PLK01';
  end if;
  select * into oldest from plank.log order by first_seq limit 1;
  if not oldest.purging then
    -- If the log is too large, only the excess is purged: a log row is marked if this row and all
    -- later rows together hold more than p_keep_bytes.
    update plank.log l set purging = true,
      quiet = first_seq = last_seq and bytes < 200
        and exists (select from plank.between(l.before_snap, l.upto_snap) b where b.action = 'C')
    where first_seq in (
      select f.first_seq from (
        select first_seq, drained_at, sum(bytes) over (order by first_seq) - bytes as before
        from plank.log order by first_seq limit least(p_batch, 1000)) f
      where f.drained_at < clock_timestamp() - p_keep
         or (select log_bytes from plank.leader) - f.before > p_keep_bytes);
  end if;
  select * into newest from plank.log where purging order by first_seq desc limit 1;
  if not found then
    return 0;
  end if;
  -- The snapshot that ends a log row begins the next log row. So the changes of several consecutive
  -- log rows are the difference of only two snapshots.
  delete from plank.outbox o using (
    select c.ctid as at from plank.outbox c
    where c.xid >= pg_snapshot_xmax(oldest.before_snap) and c.xid < pg_snapshot_xmax(newest.upto_snap)
      and pg_visible_in_snapshot(c.xid, newest.upto_snap)
    union all
    select c.ctid from plank.outbox c
    where c.xid = any (array(
      select x from pg_snapshot_xip(oldest.before_snap) x where pg_visible_in_snapshot(x, newest.upto_snap)))
    limit p_batch) old
  where o.ctid = old.at;
  get diagnostics deleted = row_count;
  if deleted < p_batch then
    with purged as (delete from plank.log where purging returning bytes, last_seq, quiet)
    update plank.leader set written_by = pg_current_xact_id(),
      log_bytes = log_bytes - (select coalesce(sum(bytes), 0) from purged),
      purged_seq = greatest(purged_seq, (select max(last_seq) from purged where not quiet));
    deleted := greatest(deleted, 1);
  end if;
  return deleted;
end $$;
