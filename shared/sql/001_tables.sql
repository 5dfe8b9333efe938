-- What Plank keeps in the database: which tables are attached, the captured changes, the log that
-- puts them in order, and who leads.

-- Capture runs as the owner of each table (004_capture.sql), who has to find the functions that it
-- calls. The grant opens nothing else: no table is granted to anybody, and functions run with the
-- rights of their caller.
grant usage on schema plank to public;

-- The attached tables. A dump carries this table to other databases, where the numbers of the
-- catalog (of tables, of columns) mean something else. So each number stands beside a name, and
-- "catalog" says where the numbers come from. Read the view plank.attached, which translates all of
-- it to this database.
create table plank.attachments (
  id               integer generated always as identity primary key,  -- names the table inside events
  catalog          text not null,                         -- plank.this_catalog() of the database of the numbers
  relation         oid not null,
  schema_name      text not null,
  table_name       text not null,
  key_columns      text[] not null,                       -- the primary key as capture renders it
  -- Columns that never leave the database, and columns that REST refuses to write. Each has its
  -- name and its number, as renaming an excluded column must not reveal it. A null number: the
  -- column was dropped, and a new column of that name is excluded (read-only) too.
  excluded          text[] not null default '{}',
  excluded_numbers  smallint[] not null default '{}',
  read_only         text[] not null default '{}',
  read_only_numbers smallint[] not null default '{}',
  shape             text,                                 -- plank.shape() when the capture was generated,
  code              text,                                 -- and plank.code() then
  -- A digest of the table's row of plank.catalog that gateways were last notified of, and what else
  -- the images of its rows depend on, see plank.rendering.
  catalog_digest    text,
  rendering         text[],
  -- Names and numbers that columns have had since the table was attached, and the numbers that were
  -- part of a key.
  seen_names        text[] not null default '{}',
  seen_numbers      smallint[] not null default '{}',
  seen_keys         smallint[] not null default '{}',
  -- Transactions before former_xid may have captured columns that were excluded later. Of their
  -- images only former_columns may be read, and of their keys nothing unless former_key is true.
  -- See plank.hide_former_columns.
  former_catalog    text,                                 -- only valid there: a restored dump has a new history
  former_xid        xid8,
  former_columns    text[],
  former_key        boolean,
  unique (catalog, relation)
);

-- Names the catalog of this database. A copy of the files or of a template has the same numbers and
-- the same name; a restored dump has other numbers and another name.
create function plank.this_catalog() returns text language sql stable as $$
  select format('%s/%s', (select system_identifier from pg_control_system()), 'plank.attachments'::regclass::oid)
$$;

-- The attached table in a restored dump: the one with the triggers that the dump brought along,
-- whatever its name is now; without triggers, the one of the recorded name.
create function plank.relation_of(t plank.attachments) returns regclass language sql stable as $$
  select coalesce(
    (select tgrelid::regclass from pg_trigger
     where tgfoid = to_regproc(format('plank.capture_%s_truncate', t.id)) and tgnargs = 1 limit 1),
    to_regclass(format('%I.%I', t.schema_name, t.table_name)))
$$;

-- The name that clients use for a table.
create function plank.name_in(p_schema text, p_table text) returns text language sql immutable as $$
  select case when p_schema = 'public' then p_table else p_schema || '.' || p_table end
$$;

create function plank.public_name(relation regclass) returns text language sql stable as $$
  select plank.name_in(n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = relation
$$;

-- The columns (attnum) for recorded names and numbers. p_here: the numbers are those of this
-- catalog. The name of a dropped column also matches a new column of that name. Null if the numbers
-- are of another catalog and a name is not found: then any column may be the one.
create function plank.columns_of(relation regclass, p_names text[], p_numbers smallint[], p_here boolean)
returns smallint[]
language sql stable as $$
  with columns as (
    select attnum, attname::text from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped
  ), meant as (
    select n.number is not null and not p_here and c.attnum is null as is_lost, c.attnum
    from unnest(p_names, p_numbers) n(name, number) left join columns c
      on case when p_here and n.number in (select attnum from columns) then c.attnum = n.number
              else c.attname = n.name end
  )
  select case when not coalesce(bool_or(is_lost), false)
    then coalesce(array_agg(distinct attnum) filter (where attnum is not null), '{}') end from meant
$$;

-- The generated columns that are computed from columns of p_hidden, and are not hidden themselves.
create function plank.showing(relation regclass, p_hidden smallint[]) returns text[]
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select array_agg(distinct c.attname::text) from pg_attribute c
  left join pg_attrdef e on e.adrelid = c.attrelid and e.adnum = c.attnum
  -- up to PostgreSQL 14 the column depends on those it is computed from; since 15 its expression does
  join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = c.attrelid
    and d.refobjsubid = any (p_hidden)
    and (d.classid = 'pg_attrdef'::regclass and d.objid = e.oid
         or d.classid = 'pg_class'::regclass and d.objid = c.attrelid and d.objsubid = c.attnum)
  where c.attrelid = relation and c.attgenerated <> '' and c.attnum <> all (p_hidden)
$$;

-- Locks a table and its partitions. Waits at most p_ms milliseconds, as later writers queue behind
-- this request; a shorter lock_timeout of the session stays. The lock is taken before any row of
-- Plank's tables, as ALTER TABLE does, so that the two cannot deadlock. A role that may create
-- triggers but not lock the table gets an error, or no lock if p_strict is false: the timeout then
-- stays until the end of the transaction, for CREATE TRIGGER.
create function plank.lock_table(relation regclass, p_mode text, p_ms integer, p_strict boolean default true) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  was_ms integer := (select setting from pg_settings where name = 'lock_timeout');
begin
  if was_ms = 0 or was_ms > p_ms then
    perform set_config('lock_timeout', p_ms::text, true);
  end if;
  if not p_strict and not (has_table_privilege(relation, 'update') or has_table_privilege(relation, 'delete')
          or has_table_privilege(relation, 'truncate')) then
    return;
  end if;
  execute format('lock table %s in %s mode', relation, p_mode);
  perform set_config('lock_timeout', was_ms::text, true);
exception when lock_not_available then
  raise exception 'plank: % is in use by other transactions, and could not be locked in time', relation
    using errcode = 'lock_not_available',
          hint = format('Try again when these sessions have ended their transactions: %s.', (
      select string_agg(distinct pid::text, ', ') from pg_locks l
      where locktype = 'relation' and granted and pid <> pg_backend_pid()
        -- no other lock waits for readers
        and (p_mode = 'access exclusive' or mode not in ('AccessShareLock', 'RowShareLock'))
        and database = (select oid from pg_database where datname = current_database())
        and l.relation in (
          select relid from pg_partition_tree(lock_table.relation) union select lock_table.relation)));
end $$;

create function plank.column_names(relation regclass, p_numbers smallint[]) returns text[] language sql stable as $$
  select case when p_numbers is not null then coalesce(array_agg(attname::text order by attnum), '{}') end
  from pg_attribute where attrelid = relation and attnum = any (p_numbers) and not attisdropped
$$;

-- The attached tables in terms of this database's catalog. For a table that is not in this
-- database, relation is null or the oid of no table. There are two views, as rows can be deleted
-- from the second. Functions are called only for what few tables have, as one call costs more than
-- the rest of the row.
create view plank.located as
select t.*,
       case when t.catalog = (select plank.this_catalog()) then t.relation::regclass
            else plank.relation_of(t) end as table_oid,
       t.catalog <> (select plank.this_catalog()) as moved
from plank.attachments t;

create view plank.attached as
select t.id,
       t.table_oid as relation,
       coalesce((select plank.name_in(n.nspname, c.relname) from pg_class c
                 join pg_namespace n on n.oid = c.relnamespace where c.oid = t.table_oid),
                plank.name_in(t.schema_name, t.table_name)) as name,
       t.key_columns,
       -- columns (attnum); null if one of them cannot be identified, and then no column may be
       -- shown
       case when t.excluded = '{}' then '{}'
            else plank.columns_of(t.table_oid, t.excluded, t.excluded_numbers, not t.moved) end as excluded,
       -- names of columns; null if one of them cannot be identified
       case when t.read_only = '{}' then '{}'
            else plank.column_names(t.table_oid,
                   plank.columns_of(t.table_oid, t.read_only, t.read_only_numbers, not t.moved)) end as read_only,
       t.moved,                                           -- attached in another database; this is a restored dump
       t.shape, t.code, t.catalog_digest, t.rendering
from plank.located t;

-- Captured changes, in the order in which statements captured them. Append-only: nothing marks a
-- row as consumed.
create table plank.outbox (
  -- CACHE 1: ids must rise in the order in which transactions get a row's lock.
  id       bigint not null generated by default as identity (cache 1),
  xid      xid8 not null default pg_current_xact_id(),    -- the top-level transaction
  at       timestamptz not null default clock_timestamp(),
  relation integer not null,                              -- plank.attachments.id
  -- I(nsert) U(pdate) D(elete) T(runcate) S(hape of the table changed) R(ows changed without
  -- INSERT, UPDATE or DELETE) C(anary)
  action   "char" not null,
  key      text,                                          -- the primary key as JSON
  new      text,                                          -- images as JSON, rendered here and never again
  old      text
);
grant select on sequence plank.outbox_id_seq to public;
create index outbox_xid_id on plank.outbox (xid, id);
-- Plank updates and deletes rows here inside the writers' transactions (002_reorder.sql). A
-- publication for all tables would make those fail without a replica identity. A primary key would
-- be one, but would cost writers another index.
alter table plank.outbox replica identity full;
-- Rows are written once and deleted in bulk: deleted ones must be reclaimed before the next
-- million.
alter table plank.outbox set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2,
  autovacuum_analyze_scale_factor = 0.2);

-- One row for each drain that found something. The changes first_seq … last_seq are exactly those
-- that became visible between the snapshots before_snap and upto_snap; plank.read_log derives the
-- same changes with the same seqs at any later time.
create table plank.log (
  first_seq   bigint primary key,
  last_seq    bigint not null unique,
  before_snap pg_snapshot not null,
  upto_snap   pg_snapshot not null,
  bytes       bigint not null,
  drained_at  timestamptz not null default clock_timestamp(),
  purging     boolean not null default false,
  quiet       boolean not null default false,             -- holds only a canary; set when the row is marked as purging
  chunked     boolean not null default false,             -- described by plank.chunks as well
  check (last_seq >= first_seq)
);

-- Where the changes of a large drain are, about a megabyte each. A reader can start at any chunk
-- without sorting the whole drain.
create table plank.chunks (
  log_seq   bigint not null references plank.log on delete cascade,
  first_seq bigint not null,
  last_seq  bigint not null,
  xids      xid8[] not null,                              -- its transactions in order; the first and last may be longer
  last_ids  bigint[] not null,                            -- the highest id of each of them
  from_ids  bigint[] not null,                            -- the range of ids that each has in this chunk
  upto_ids  bigint[] not null,
  primary key (log_seq, first_seq)
);

-- An epoch is one unbroken history. A new epoch's number is above all earlier ones of this
-- database, and about the seconds since June 2025, so that positions of another database, or
-- leftovers in Redis, are never taken for this one's. The random part tells two copies of a
-- database apart that begin an epoch in the same second.
create function plank.new_epoch(p_above integer default 0) returns integer language sql volatile as $$
  select greatest(p_above, (extract(epoch from clock_timestamp()) - 1750000000)::integer)
         + 1 + floor(random() * 4096)::integer
$$;

-- The one row that every drain writes. The holder of the highest term leads; the lease only says
-- when another may try.
create table plank.leader (
  one        boolean primary key default true check (one),
  term       bigint not null default 0,
  holder     text,
  expires_at timestamptz not null default '-infinity',
  epoch      integer not null default plank.new_epoch(),
  next_seq   bigint not null default 1,
  log_bytes  bigint not null default 0,                   -- sum of plank.log.bytes, so that nobody has to scan for it
  purged_seq bigint not null default 0,                   -- the last seq purged from the log that was no canary
  snap       pg_snapshot not null default pg_current_snapshot(), -- everything visible in it has a seq
  -- These two identify the row as written here. A dump carries both, but neither the oid of this
  -- table nor the xmin of the row. If they differ, a dump was restored, and its transaction ids
  -- mean nothing. So each update sets written_by.
  table_oid  oid not null default 'plank.leader'::regclass,
  written_by xid8 not null default pg_current_xact_id()
) with (fillfactor = 20);
insert into plank.leader default values;

-- All epochs of this database. A position of an older epoch stays valid up to where each later
-- epoch forked off.
create table plank.epochs (
  epoch      integer primary key,
  system_id  bigint not null,
  timeline   text not null,
  database   oid not null,
  server_started_at timestamptz not null,
  forked_at  bigint not null,                             -- the last seq that this epoch shares with the one before
  started_at timestamptz not null default clock_timestamp()
);
