-- What Plank keeps in the database: the captured changes, the log that puts them in order, who leads, what is attached.

-- Capture runs as the owner of each table (004_capture.sql), who has to find what it calls. It opens nothing: tables are granted to nobody,
-- and functions run with the rights of who calls them.
grant usage on schema plank to public;

-- What is attached. A dump carries this to other databases, where numbers of the catalog (of tables, of columns) mean something else: so
-- each number stands beside a name, and "catalog" says where the numbers are of. Read plank.attached, which says what all of it means here.
create table plank.attachments (
  id               integer generated always as identity primary key,  -- names the table inside events
  catalog          text not null,                                -- plank.this_catalog() of the database that the numbers are of
  relation         oid not null,
  schema_name      text not null,
  table_name       text not null,
  key_columns      text[] not null,                              -- as capture tells it
  -- Columns that never leave the database, and columns that REST refuses to write: names, and for each its number, as a rename must not
  -- reveal a column. Number null: the column has gone, and one that comes back by its name is meant as well.
  excluded          text[] not null default '{}',
  excluded_numbers  smallint[] not null default '{}',
  read_only         text[] not null default '{}',
  read_only_numbers smallint[] not null default '{}',
  shape             text,                                        -- plank.shape() when the capture was generated,
  code              text,                                        -- and plank.code() then
  -- What gateways were told: a digest of the table's row of plank.catalog; and what else its rows' images depend on, see plank.rendering.
  told              text,
  rendering         text[],
  -- What the columns have been called since the table was attached, and which ones were in the key.
  seen_names        text[] not null default '{}',
  seen_numbers      smallint[] not null default '{}',
  seen_keys         smallint[] not null default '{}',
  -- Transactions before this one may have captured columns that were excluded later. Of their images only these columns may be read, of
  -- their keys only where this is true.
  former_catalog    text,                                        -- where this is so: a restored dump begins a history of its own
  former_xid        xid8,
  former_columns    text[],
  former_key        boolean,
  unique (catalog, relation)
);

-- Names the catalog of this database: a copy of the database's files or of a template has the same numbers, a restored dump has not.
create function plank.this_catalog() returns text language sql stable as $$
  select format('%s/%s', (select system_identifier from pg_control_system()), 'plank.attachments'::regclass::oid)
$$;

-- The table that is attached, in another database: the one whose triggers a dump has brought along, whatever it is called by now.
create function plank.relation_of(t plank.attachments) returns regclass language sql stable as $$
  select coalesce(
    (select tgrelid::regclass from pg_trigger where tgfoid = to_regproc(format('plank.capture_%s_truncate', t.id)) and tgnargs = 1 limit 1),
    to_regclass(format('%I.%I', t.schema_name, t.table_name)))
$$;

-- What clients call a table.
create function plank.name_in(p_schema text, p_table text) returns text language sql immutable as $$
  select case when p_schema = 'public' then p_table else p_schema || '.' || p_table end
$$;

create function plank.public_name(relation regclass) returns text language sql stable as $$
  select plank.name_in(n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation
$$;

-- The columns (attnum) that are meant by these names and numbers. A column that has gone leaves its name: a new one of that name is meant,
-- too. Null where a column of another catalog is not found by its name: then it may be any.
create function plank.columns_of(relation regclass, p_names text[], p_numbers smallint[], p_here boolean) returns smallint[]
language sql stable as $$
  with columns as (
    select attnum, attname::text from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped
  ), meant as (
    select n.number is not null and not p_here and c.attnum is null as is_lost, c.attnum
    from unnest(p_names, p_numbers) n(name, number) left join columns c
      on case when p_here and n.number in (select attnum from columns) then c.attnum = n.number else c.attname = n.name end
  )
  select case when not coalesce(bool_or(is_lost), false) then coalesce(array_agg(distinct attnum) filter (where attnum is not null), '{}') end from meant
$$;

-- The generated columns that are computed from columns of p_hidden, and are not among these themselves.
create function plank.showing(relation regclass, p_hidden smallint[]) returns text[] language sql stable
set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select array_agg(distinct c.attname::text) from pg_attribute c
  left join pg_attrdef e on e.adrelid = c.attrelid and e.adnum = c.attnum
  -- (up to PostgreSQL 14 the column depends on what it is computed from, from 15 on its expression does)
  join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = c.attrelid and d.refobjsubid = any (p_hidden)
    and (d.classid = 'pg_attrdef'::regclass and d.objid = e.oid
         or d.classid = 'pg_class'::regclass and d.objid = c.attrelid and d.objsubid = c.attnum)
  where c.attrelid = relation and c.attgenerated <> '' and c.attnum <> all (p_hidden)
$$;

-- Locks a table and its partitions. Waits p_ms milliseconds at most, because later writers queue behind this request. A shorter
-- lock_timeout of the session holds. The lock is taken before any row of Plank's tables, as ALTER TABLE does: the two cannot deadlock.
-- A role that may only create triggers may not lock a table. The timeout holds to the end of its transaction then, for CREATE TRIGGER.
create function plank.lock_table(relation regclass, p_mode text, p_ms integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  was_ms integer := (select setting from pg_settings where name = 'lock_timeout');
begin
  if was_ms = 0 or was_ms > p_ms then
    perform set_config('lock_timeout', p_ms::text, true);
  end if;
  if not (has_table_privilege(relation, 'update') or has_table_privilege(relation, 'delete') or has_table_privilege(relation, 'truncate')) then
    return;
  end if;
  execute format('lock table %s in %s mode', relation, p_mode);
  perform set_config('lock_timeout', was_ms::text, true);
exception when lock_not_available then
  raise exception 'plank: % is in use by other transactions, and could not be locked in time', relation
    using errcode = 'lock_not_available', hint = format('Try again when these sessions have ended their transactions: %s.', (
      select string_agg(distinct pid::text, ', ') from pg_locks l
      where locktype = 'relation' and granted and pid <> pg_backend_pid() and database = (select oid from pg_database where datname = current_database())
        and l.relation in (select relid from pg_partition_tree(lock_table.relation) union select lock_table.relation)));
end $$;

create function plank.column_names(relation regclass, p_numbers smallint[]) returns text[] language sql stable as $$
  select case when p_numbers is not null then coalesce(array_agg(attname::text order by attnum), '{}') end
  from pg_attribute where attrelid = relation and attnum = any (p_numbers) and not attisdropped
$$;

-- What is attached, in terms of this database's catalog. Of a table that is not here, relation is null, or is no table's.
-- (Two views, as rows are deleted from the second. No function is called for what most tables have not, as it costs more than all the rest.)
create view plank.located as
select t.*, case when t.catalog = (select plank.this_catalog()) then t.relation::regclass else plank.relation_of(t) end as table_oid,
       t.catalog <> (select plank.this_catalog()) as moved
from plank.attachments t;

create view plank.attached as
select t.id,
       t.table_oid as relation,
       coalesce((select plank.name_in(n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = t.table_oid),
                plank.name_in(t.schema_name, t.table_name)) as name,
       t.key_columns,
       -- columns (attnum); null where one cannot be told, and hence none may be shown
       case when t.excluded = '{}' then '{}' else plank.columns_of(t.table_oid, t.excluded, t.excluded_numbers, not t.moved) end as excluded,
       -- names of columns; null where one cannot be told
       case when t.read_only = '{}' then '{}' else plank.column_names(t.table_oid, plank.columns_of(t.table_oid, t.read_only, t.read_only_numbers, not t.moved)) end as read_only,
       t.moved,                                                   -- attached in another database, of which this one is a restored dump
       t.shape, t.code, t.told, t.rendering
from plank.located t;

-- Captured changes, in the order in which statements captured them. Append-only: nothing marks a row as consumed.
create table plank.outbox (
  -- CACHE 1: ids must rise with the order in which transactions get a row's lock.
  id       bigint not null generated by default as identity (cache 1),
  xid      xid8 not null default pg_current_xact_id(),           -- the top-level transaction
  at       timestamptz not null default clock_timestamp(),
  relation integer not null,                                     -- plank.attachments.id
  action   "char" not null,                                      -- I U D T(runcate) S(hape of the table changed) R(ows changed without changes of their own) C(anary)
  key      text,                                                 -- the primary key as JSON
  new      text,                                                 -- images as JSON, rendered once and never again
  old      text
);
grant select on sequence plank.outbox_id_seq to public;
create index outbox_xid_id on plank.outbox (xid, id);
-- Without an identity, a publication for all tables would make writers fail where their rows here are put in order. No key serves them.
alter table plank.outbox replica identity full;
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

-- An epoch is one unbroken history. Its number is above all that the history had before, and about the second in which it began (since
-- June 2025), so that another database's positions and leftovers in Redis are never taken for this one's. Two copies of a database that
-- begin in the same second differ by chance.
create function plank.new_epoch(p_above integer default 0) returns integer language sql volatile as $$
  select greatest(p_above, (extract(epoch from clock_timestamp()) - 1750000000)::integer) + 1 + floor(random() * 4096)::integer
$$;

-- The one row that a drain writes. Whoever holds the highest term leads; the lease only says when another may try.
create table plank.leader (
  one        boolean primary key default true check (one),
  term       bigint not null default 0,
  holder     text,
  expires_at timestamptz not null default '-infinity',
  epoch      integer not null default plank.new_epoch(),
  next_seq   bigint not null default 1,
  log_bytes  bigint not null default 0,                          -- sum of plank.log.bytes, kept so that nobody has to scan for it
  forgotten_seq bigint not null default 0,                       -- the last seq purged from the log that was more than a canary's
  snap       pg_snapshot not null default pg_current_snapshot(), -- everything visible in it has a seq
  -- A dump carries both, but neither this table's oid nor the row's xmin: where they are not the same, a dump was restored, and the
  -- transaction ids in it mean nothing. So each update of the row sets written_by.
  table_oid  oid not null default 'plank.leader'::regclass,
  written_by xid8 not null default pg_current_xact_id()
) with (fillfactor = 20);
insert into plank.leader default values;

-- All epochs of this database. A cursor of an older one stays valid up to where each later one forked off.
create table plank.epochs (
  epoch      integer primary key,
  system_id  bigint not null,
  timeline   text not null,
  database   oid not null,
  server_started_at timestamptz not null,
  forked_at  bigint not null,                                    -- last seq that this epoch shares with the one before
  started_at timestamptz not null default clock_timestamp()
);
