-- What Plank keeps in the database: the captured changes, the log that puts them in order, who leads, what is attached.

create table plank.attached (
  id          integer generated always as identity primary key,  -- names the table inside events
  relation    regclass not null unique,
  name        text not null unique,                              -- what clients call it: "items", or "sales.orders" outside public
  key_columns text[] not null,
  excluded    smallint[] not null default '{}',                  -- columns (attnum: a rename must not reveal them) that never leave the database
  read_only   text[] not null default '{}'                       -- columns that REST refuses to write
);

-- Captured changes, in the order in which statements captured them. Append-only: nothing marks a row as consumed.
create table plank.outbox (
  id       bigint not null,
  xid      xid8 not null default pg_current_xact_id(),           -- the top-level transaction
  at       timestamptz not null default clock_timestamp(),
  relation integer not null,                                     -- plank.attached.id
  action   "char" not null,                                      -- I U D T(runcate) S(hape of the table changed) C(anary)
  key      text,                                                 -- the primary key as JSON
  new      text,                                                 -- images as JSON, rendered once and never again
  old      text
);
-- CACHE 1: ids must rise with the order in which transactions get a row's lock.
create sequence plank.outbox_id_seq as bigint cache 1 owned by plank.outbox.id;
alter table plank.outbox alter column id set default nextval('plank.outbox_id_seq');
create index outbox_xid_id on plank.outbox (xid, id);
-- Rows are written once and deleted in bulk: what matters is that deleted ones are reclaimed before the next million.
alter table plank.outbox set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.2);

-- One row for each drain that found something. The changes seq first_seq … last_seq are exactly those that became visible
-- between the snapshots before_snap and upto_snap; plank.read_log derives them again, the same at any later time.
create table plank.log (
  first_seq   bigint primary key,
  last_seq    bigint not null unique,
  before_snap pg_snapshot not null,
  upto_snap   pg_snapshot not null,
  bytes       bigint not null,
  drained_at  timestamptz not null default clock_timestamp(),
  purging     boolean not null default false,
  quiet       boolean not null default false,                    -- a canary and nothing else: looked at when it is to be purged
  chunked     boolean not null default false,                    -- described by plank.chunks as well
  check (last_seq >= first_seq)
);

-- Where the changes of a large drain are, about a megabyte each, so that reading on from any of them needs no sorting of them all.
create table plank.chunks (
  log_seq   bigint not null references plank.log on delete cascade,
  first_seq bigint not null,
  last_seq  bigint not null,
  xids      xid8[] not null,                                     -- its transactions in order; the first and last may reach beyond it
  last_ids  bigint[] not null,                                   -- of each the highest id
  from_ids  bigint[] not null,                                   -- of each the ids in this chunk
  upto_ids  bigint[] not null,
  primary key (log_seq, first_seq)
);

-- An epoch is one unbroken history; its number is the second in which it began (since June 2025), so that another database's
-- positions and leftovers in Redis are never taken for this one's.
create function plank.new_epoch() returns integer language sql volatile as $$
  select (extract(epoch from clock_timestamp()) - 1750000000)::integer
$$;

-- The one row that a drain locks. Whoever holds the highest term leads; the lease only says when another may try.
create table plank.leader (
  one        boolean primary key default true check (one),
  term       bigint not null default 0,
  holder     text,
  expires_at timestamptz not null default '-infinity',
  epoch      integer not null default plank.new_epoch(),
  next_seq   bigint not null default 1,
  log_bytes  bigint not null default 0,                          -- sum of plank.log.bytes, kept so that nobody has to scan for it
  forgotten_seq bigint not null default 0,                       -- the last seq purged from the log that was more than a canary's
  snap       pg_snapshot not null default pg_current_snapshot()  -- everything visible in it has a seq
) with (fillfactor = 20);
insert into plank.leader default values;

-- All epochs of this database. A cursor of an older one stays valid up to where each later one forked off.
create table plank.epochs (
  epoch      integer primary key,
  system_id  bigint not null,
  timeline   text not null,
  forked_at  bigint not null,                                    -- last seq that this epoch shares with the one before
  started_at timestamptz not null default clock_timestamp()
);
