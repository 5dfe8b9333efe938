-- The tables that Plank keeps in the database: the attached tables, the captured changes, the log
-- that puts the changes in order, and the leader.

-- Capture runs as the owner of each table (005_capture_rights.sql). That role needs this grant to
-- find the functions that capture calls. USAGE on the schema gives no right to a table. Functions
-- run with the rights of their caller, except those that say "security definer".
-- 005_capture_rights.sql has the other grants to PUBLIC, and this file grants one sequence.
grant usage on schema plank to public;

-- The attached tables. A dump carries this table to other databases. In another database, the
-- catalog gives the same numbers to other tables and columns. So each number stands beside a name,
-- and "catalog" names the database that the numbers come from. Code reads the view plank.attached
-- instead, which translates names and numbers to this database.
create table plank.attachments (
  id               integer generated always as identity primary key,  -- names the table inside events
  catalog          text not null,                         -- plank.this_catalog() of the database with these numbers
  relation         oid not null,
  schema_name      text not null,
  table_name       text not null,
  key_columns      text[] not null,                       -- the primary key as capture renders it
  -- Columns that never leave the database (excluded), and columns that REST refuses to write
  -- (read_only). Each column is recorded with its name and its number, so that renaming an excluded
  -- column does not reveal it. If a number is null, the column was dropped; a new column of that
  -- name is excluded (or read-only) too.
  excluded          text[] not null default '{}',
  excluded_numbers  smallint[] not null default '{}',
  read_only         text[] not null default '{}',
  read_only_numbers smallint[] not null default '{}',
  shape             text,                                 -- plank.shape() when capture was last generated
  code              text,                                 -- plank.code() when capture was last generated
  -- catalog_digest: a digest of the table's row in plank.catalog. When the digest changes, gateways
  -- are notified by an event. rendering: everything else that the images of the table's rows depend
  -- on, see plank.rendering.
  catalog_digest    text,
  rendering         text[],
  -- All names and numbers that the table's columns have had since it was attached, and the numbers
  -- of all columns that have been part of its key.
  seen_names        text[] not null default '{}',
  seen_numbers      smallint[] not null default '{}',
  seen_keys         smallint[] not null default '{}',
  -- Transactions before former_xid may have captured columns that were excluded later. In the
  -- images of these transactions, only former_columns may be read. Their keys may be read only if
  -- former_key is true. See plank.hide_former_columns.
  former_catalog    text,                                 -- former_xid is valid only in this catalog
  former_xid        xid8,
  former_columns    text[],
  former_key        boolean,
  policies_xid      xid8,                                 -- the transaction that changed the policies last
  unique (catalog, relation)
);

-- Who may do what with the rows of attached tables, see 014_policies.sql. Filters are JSON; null:
-- nothing is allowed.
create table plank.policy (
  attachment    integer not null references plank.attachments on delete cascade,
  role          text not null,
  read          jsonb,
  insert        jsonb,
  update        jsonb,
  delete        jsonb,
  "check"       jsonb,
  read_columns  text[],                                   -- null: every column that is not excluded
  write_columns text[],                                   -- null: every writable column
  presets       jsonb,
  catalog       text not null default '',                 -- the numbers in plank.policy_uses are valid in this catalog
  -- Why the policy allows nothing, as gateways were last notified. Null: it can be used.
  problem       text,
  primary key (attachment, role)
);

-- The columns that a policy names, of its own table and of tables that it names by $from. As in
-- plank.attachments, the number of a column stands beside its name. A policy whose names mean other
-- columns or tables than they did when it was set allows nothing, see plank.policy_problem.
create table plank.policy_uses (
  id         bigint primary key generated always as identity,
  attachment integer not null,
  role       text not null,
  used       integer not null,                            -- plank.attachments.id of the column's table
  "from"     text,                                        -- the name of that table in $from; null: the policy's own
  "column"   text not null,
  number     smallint not null,
  foreign key (attachment, role) references plank.policy on delete cascade
);
create index policy_uses_role on plank.policy_uses (attachment, role);

-- Tokens that are refused although they have not expired: all of a user that were issued up to a
-- time, or one.
create table plank.revocations (
  id     bigint primary key generated always as identity, -- rises in the order in which revocations are committed
  "user" text,
  before timestamptz,                                     -- tokens of the user issued up to this time
  token  text,                                            -- or the token with this id (claim jti)
  at     timestamptz not null default clock_timestamp(),
  check (("user" is null) = (before is null) and ("user" is null) <> (token is null))
);

-- Names the catalog of this database. A copy of the database's files, or a database created from
-- this one as the template, has the same catalog numbers and the same name. A restored dump has
-- other numbers and another name.
create function plank.this_catalog() returns text language sql stable as $$
  select format('%s/%s', (select system_identifier from pg_control_system()), 'plank.attachments'::regclass::oid)
$$;

-- Finds the attached table in a restored dump. If the dump brought Plank's triggers along, returns
-- the table that has these triggers, even if the table was renamed. Else returns the table with the
-- recorded name.
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

-- Returns the columns (attnum) that the recorded names and numbers mean. p_here is true if the
-- numbers come from this database's catalog. The name of a dropped column also matches a new column
-- of that name. If the numbers come from another catalog and a name is not found, returns null,
-- because any column may be the missing one.
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

-- The generated columns that are not in p_hidden and are computed from columns in p_hidden.
create function plank.showing(relation regclass, p_hidden smallint[]) returns text[]
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select array_agg(distinct c.attname::text) from pg_attribute c
  left join pg_attrdef e on e.adrelid = c.attrelid and e.adnum = c.attnum
  -- up to PostgreSQL 14, the generated column itself depends on the columns that it is computed
  -- from; since PostgreSQL 15, its expression depends on them
  join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = c.attrelid
    and d.refobjsubid = any (p_hidden)
    and (d.classid = 'pg_attrdef'::regclass and d.objid = e.oid
         or d.classid = 'pg_class'::regclass and d.objid = c.attrelid and d.objsubid = c.attnum)
  where c.attrelid = relation and c.attgenerated <> '' and c.attnum <> all (p_hidden)
$$;

-- Locks a table and its partitions. Waits at most p_ms milliseconds, as later writers queue behind
-- this request. If the session has a shorter lock_timeout, that one applies. Callers take this lock
-- before they lock any row of Plank's tables. ALTER TABLE takes its locks in the same order, so the
-- two cannot deadlock.
--
-- A role may have the right to create triggers without the right to lock the table. For such a
-- role, this function fails if p_strict is true. If p_strict is false, the function takes no lock
-- and returns. It then leaves lock_timeout set until the end of the transaction, so that CREATE
-- TRIGGER waits at most p_ms milliseconds too.
create function plank.lock_table(relation regclass, p_mode text, p_ms integer, p_strict boolean default true)
returns void
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
        -- of the modes that callers request, only access exclusive waits for sessions that only
        -- read
        and (p_mode = 'access exclusive' or mode not in ('AccessShareLock', 'RowShareLock'))
        and database = (select oid from pg_database where datname = current_database())
        and l.relation in (
          select relid from pg_partition_tree(lock_table.relation) union select lock_table.relation)));
end $$;

create function plank.column_names(relation regclass, p_numbers smallint[]) returns text[] language sql stable as $$
  select case when p_numbers is not null then coalesce(array_agg(attname::text order by attnum), '{}') end
  from pg_attribute where attrelid = relation and attnum = any (p_numbers) and not attisdropped
$$;

-- The attached tables, with the names and numbers of this database's catalog. If a table is not in
-- this database, relation is null or an oid that no table has. plank.attached takes table_oid from
-- a view of its own, plank.located. A subquery in FROM instead would make plank.attached read-only,
-- but rows are deleted through plank.attached. A function call costs more than all other work for a
-- row, so the views call functions only for properties that few tables have.
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
       -- numbers of columns (attnum). If a column cannot be identified, this is null, and then no
       -- column of the table may be shown.
       case when t.excluded = '{}' then '{}'
            else plank.columns_of(t.table_oid, t.excluded, t.excluded_numbers, not t.moved) end as excluded,
       -- names of columns; null if one of them cannot be identified
       case when t.read_only = '{}' then '{}'
            else plank.column_names(t.table_oid,
                   plank.columns_of(t.table_oid, t.read_only, t.read_only_numbers, not t.moved)) end as read_only,
       t.moved,                                           -- true if this database is a restored dump
       t.shape, t.code, t.catalog_digest, t.rendering
from plank.located t;

-- Captured changes, in the order in which statements captured them. Append-only: no reader marks a
-- row as read.
create table plank.outbox (
  -- CACHE 1 (no session reserves ids ahead), because ids must rise in the order in which
  -- transactions get a row's lock.
  id       bigint not null generated by default as identity (cache 1),
  xid      xid8 not null default pg_current_xact_id(),    -- the top-level transaction
  at       timestamptz not null default clock_timestamp(),
  relation integer not null,                              -- plank.attachments.id
  -- I(nsert) U(pdate) D(elete) T(runcate) S(hape of the table changed) R(ows changed without
  -- INSERT, UPDATE or DELETE) A(ccess: the table's policies changed, new has all of them as JSON)
  -- V (a user or a token was revoked, see new; no table) C(anary; no table)
  action   "char" not null,
  key      text,                                          -- the primary key as JSON
  new      text,                                          -- images as JSON; no later step renders them again
  old      text
);
grant select on sequence plank.outbox_id_seq to public;
create index outbox_xid_id on plank.outbox (xid, id);
-- Plank updates and deletes rows here inside the writers' transactions (002_reorder.sql). If a
-- publication for all tables exists, these updates and deletes fail on a table without a replica
-- identity. A primary key would be a replica identity too, but would cost writers another index.
alter table plank.outbox replica identity full;
-- Rows are written once and deleted in bulk. So autovacuum must reclaim the space of deleted rows
-- early, before the next million rows is written.
alter table plank.outbox set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2,
  autovacuum_analyze_scale_factor = 0.2);

-- One row for each drain that found changes. The changes with the seqs first_seq to last_seq are
-- exactly the changes that became visible between the snapshots before_snap and upto_snap. From
-- these columns, plank.read_log finds the same changes with the same seqs at any later time.
create table plank.log (
  first_seq   bigint primary key,
  last_seq    bigint not null unique,
  before_snap pg_snapshot not null,
  upto_snap   pg_snapshot not null,
  bytes       bigint not null,
  drained_at  timestamptz not null default clock_timestamp(),
  purging     boolean not null default false,
  quiet       boolean not null default false,             -- the only change is a canary; set together with purging
  chunked     boolean not null default false,             -- plank.chunks also says where its changes are
  check (last_seq >= first_seq)
);

-- The chunks of a large drain, about a megabyte each, and where their changes are in the outbox. A
-- reader can start at any chunk without sorting the whole drain.
create table plank.chunks (
  log_seq   bigint not null references plank.log on delete cascade,
  first_seq bigint not null,
  last_seq  bigint not null,
  xids      xid8[] not null,                              -- the transactions of the chunk's changes, in order
  last_ids  bigint[] not null,                            -- for each transaction, the highest of all its ids
  from_ids  bigint[] not null,                            -- for each transaction, the range of its ids in this chunk
  upto_ids  bigint[] not null,
  primary key (log_seq, first_seq)
);

-- An epoch is one unbroken history. A new epoch's number is above all earlier epochs of this
-- database, and is about the number of seconds since June 2025. So positions of another database,
-- or positions left over in Redis, are never taken for positions of this database. The random part
-- distinguishes two copies of a database that begin an epoch in the same second.
create function plank.new_epoch(p_above integer default 0) returns integer language sql volatile as $$
  select greatest(p_above, (extract(epoch from clock_timestamp()) - 1750000000)::integer)
         + 1 + floor(random() * 4096)::integer
$$;

-- The one row that every drain writes. The holder of the highest term leads. The lease only says
-- when another listener may try to lead.
create table plank.leader (
  one        boolean primary key default true check (one),
  term       bigint not null default 0,
  holder     text,
  expires_at timestamptz not null default '-infinity',
  epoch      integer not null default plank.new_epoch(),
  next_seq   bigint not null default 1,
  log_bytes  bigint not null default 0,                   -- sum of plank.log.bytes, kept to avoid a scan
  purged_seq bigint not null default 0,                   -- the last purged seq that was not a canary's
  snap       pg_snapshot not null default pg_current_snapshot(), -- the last drain's snapshot
  -- These two columns show whether the row was written in this database: they must equal this
  -- table's oid and the row's xmin. A dump carries the two columns, but in a restored dump the
  -- table has another oid, and the row another xmin. There the transaction ids in Plank's tables
  -- mean nothing. Each update of the row must set written_by.
  table_oid  oid not null default 'plank.leader'::regclass,
  written_by xid8 not null default pg_current_xact_id()
) with (fillfactor = 20);
insert into plank.leader default values;

-- All epochs of this database. A position of an older epoch is valid if its seq is at most the
-- forked_at of every later epoch.
create table plank.epochs (
  epoch      integer primary key,
  system_id  bigint not null,
  timeline   text not null,
  database   oid not null,
  server_started_at timestamptz not null,
  forked_at  bigint not null,                             -- the last seq that this epoch shares with the one before it
  started_at timestamptz not null default clock_timestamp()
);
