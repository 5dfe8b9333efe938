-- Makes a role for the listener and a role for the gateways. Each role has the rights that it needs and no others. Run
-- this file as the role that migrates and attaches tables, after each migration to a new version and after each
-- plank.attach:
--
--   psql "$DATABASE_URL" --file deploy/postgres/roles.sql
--   psql "$DATABASE_URL" --command "alter role plank_listener password '…'; alter role plank_gateway password '…'"
--
-- This file may run again at any time. It does not make the role that migrates. That role owns the schema plank, and is
-- a superuser or has the rights that docs/deployment.md lists.

do $$
declare
  name text;
begin
  foreach name in array array['plank_listener', 'plank_gateway'] loop
    if not exists (select from pg_roles where rolname = name) then
      execute format('create role %I login', name);
    end if;
    execute format('grant connect on database %I to %I', current_database(), name);
  end loop;
end $$;

-- The listener orders, logs and purges captured changes. It reads no table of the application.
grant usage on schema plank to plank_listener;
grant select, insert, update, delete on all tables in schema plank to plank_listener;
grant usage on all sequences in schema plank to plank_listener;

-- A gateway reads Plank's tables, and writes none of them.
grant usage on schema plank to plank_gateway;
grant select on all tables in schema plank to plank_gateway;

-- For snapshots and REST, a gateway reads the rows of attached tables. For REST, it also writes them. To make a table
-- read-only for all clients, revoke insert, update and delete on the table afterwards.
do $$
declare
  t record;
begin
  for t in select a.relation, n.nspname from plank.attached a
           join pg_class c on c.oid = a.relation join pg_namespace n on n.oid = c.relnamespace loop
    execute format('grant usage on schema %I to plank_gateway', t.nspname);
    execute format('grant select, insert, update, delete on %s to plank_gateway', t.relation);
  end loop;
  -- Serial columns need a grant on their sequences. Sequences of identity columns need no grant.
  for t in select distinct s.oid::regclass as sequence from plank.attached a
           join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.relation and d.deptype = 'a'
           join pg_class s on d.classid = 'pg_class'::regclass and s.oid = d.objid and s.relkind = 'S' loop
    execute format('grant usage on sequence %s to plank_gateway', t.sequence);
  end loop;
end $$;
