-- A role for the listener and one for the gateways, each with the rights that it needs and no others. Run it as the
-- role that migrates and attaches tables, after each migration to a new version and after each plank.attach:
--
--   psql "$DATABASE_URL" --file deploy/postgres/roles.sql
--   psql "$DATABASE_URL" --command "alter role plank_listener password '…'; alter role plank_gateway password '…'"
--
-- It may run again at any time. The role that migrates is not made here: it owns the schema plank, and is a superuser
-- or what docs/deployment.md says.

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

-- A gateway reads what Plank keeps, and changes nothing of it.
grant usage on schema plank to plank_gateway;
grant select on all tables in schema plank to plank_gateway;

-- A gateway reads the rows of attached tables for snapshots and REST, and writes them for REST. To make a table
-- read-only for all clients, revoke the last three rights afterwards.
do $$
declare
  t record;
begin
  for t in select a.relation, n.nspname from plank.attached a
           join pg_class c on c.oid = a.relation join pg_namespace n on n.oid = c.relnamespace loop
    execute format('grant usage on schema %I to plank_gateway', t.nspname);
    execute format('grant select, insert, update, delete on %s to plank_gateway', t.relation);
  end loop;
  -- the sequences of serial columns; those of identity columns need no grant
  for t in select distinct s.oid::regclass as sequence from plank.attached a
           join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.relation and d.deptype = 'a'
           join pg_class s on d.classid = 'pg_class'::regclass and s.oid = d.objid and s.relkind = 'S' loop
    execute format('grant usage on sequence %s to plank_gateway', t.sequence);
  end loop;
end $$;
