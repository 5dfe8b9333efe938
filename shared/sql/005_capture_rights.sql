-- Decides with whose rights capture runs.
--
-- Capture may run code of the table's owner, because to_json calls the cast of a user-defined type.
-- So if a superuser attached the table, the generated functions belong to the table's owner and
-- have only the owner's rights. In plank.outbox, the owner can change only the rows that the view
-- plank.outbox_N shows: changes of this table in the current transaction. To other roles the view
-- shows nothing. If a column's type belongs to a role without the owner's rights, the column is
-- rendered as text, which runs no user's code.
--
-- If the role that attached the table is not a superuser, the functions belong to that role. The
-- doctor reports such tables.
--
-- One role for the capture of all tables was rejected. The role would have to be created in each
-- cluster, and code that runs as this role could read, forge and stop the capture of other tables.

-- The generated functions of a table that run inside writes. They are looked up by their exact
-- names, which uses an index. A pattern would have to be matched with the functions of every table.
create function plank.generated_functions(p_id integer) returns setof regprocedure language sql stable as $$
  select oid::regprocedure from pg_proc where pronamespace = 'plank'::regnamespace and proname = any (array[
    'capture_' || p_id || '_insert', 'capture_' || p_id || '_update',
    'capture_' || p_id || '_delete', 'capture_' || p_id || '_truncate',
    'reorder_' || p_id, 'current_' || p_id]::name[])
$$;

create function plank.capture_function(p_id integer, p_op text) returns text language sql immutable as $$
  select format('capture_%s_%s', p_id, p_op)
$$;

-- Whether the current role owns the capture functions of a table.
create function plank.is_capture_role(p_id integer) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (select from pg_proc where oid in (select plank.generated_functions(p_id))
                                       and proowner::regrole::text = quote_ident(current_user))
$$;

-- The functions that generated functions call. Every capture role needs EXECUTE on these functions.
-- Postgres grants EXECUTE to everybody unless default privileges revoke the grant, so Plank grants
-- EXECUTE where it is missing.
create function plank.capture_helpers() returns setof regprocedure language sql stable as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'plank'::regnamespace and (
    proname in ('ring', 'reorder', 'path', 'path_starts', 'mark', 'last_id', 'keep_tids',
      'is_capture_role', 'generated_functions',
      'row_bytes', 'raw_size', 'rendered', 'rendered_any', 'partial_image') or proname like 'virtual\_%')
$$;

-- The role as which the capture of a table runs after the current role attaches the table. If the
-- current role is a superuser, this is the table's owner; else the current role.
create function plank.capture_role(relation regclass) returns name language sql stable as $$
  select case when r.rolsuper then pg_get_userbyid(c.relowner) else current_user end
  from pg_class c cross join pg_roles r where c.oid = relation and r.rolname = current_user
$$;

-- Gives the generated functions to the capture role, with the right to write to the table's view of
-- the outbox.
create function plank.set_capture_role(a plank.attached) returns void language plpgsql as $$
declare
  is_superuser boolean := (select rolsuper from pg_roles where rolname = current_user);
  own_changes  text := format('plank.%I', 'outbox_' || a.id);
  capture_role name := plank.capture_role(a.relation);
  f            regprocedure;
  grantee      regrole;
begin
  for f in select plank.generated_functions(a.id) loop
    execute format('revoke all on function %s from public', f);
    -- Default privileges or a former owner's grant may let other roles execute the function.
    -- Without this revoke, these roles could run it with the rights of the next owner.
    for grantee in select distinct x.grantee::regrole from pg_proc p cross join aclexplode(p.proacl) x
                   where p.oid = f and x.grantee not in (0, p.proowner) loop
      execute format('revoke all on function %s from %s cascade', f, grantee);
    end loop;
    if is_superuser then
      execute format('alter function %s owner to %I', f, capture_role);
    end if;
  end loop;
  -- Replacing the view waits for writers, so the view is replaced only if the capture role has
  -- changed. The view's condition compares the role's name first, as a shortcut. If the role was
  -- renamed, or the functions passed to another role by "reassign owned", the names differ. Then
  -- the view looks up the functions' owner, once for each statement and not for each row.
  if to_regclass(own_changes) is null
     or position(format('= %L::name', capture_role) in pg_get_viewdef(to_regclass(own_changes))) = 0 then
    execute format($v$
      create or replace view %1$s with (security_barrier) as select *, ctid as tid from plank.outbox
      where relation = %2$s and xid = pg_current_xact_id() and action = any ('{I,U,D,T,S,R}'::"char"[])
        and (current_user = %3$L::name or (select plank.is_capture_role(%2$s))) with check option
    $v$, own_changes, a.id, capture_role);
    if is_superuser then
      execute format('alter view %s owner to %s', own_changes,
        (select relowner::regrole from pg_class where oid = 'plank.outbox'::regclass));
    end if;
  end if;
  -- Each grant blocks other sessions that attach tables. So rights are granted only if they are
  -- missing, for example in a dump that was restored without privileges.
  if not has_any_column_privilege('public', own_changes, 'insert') then
    execute format('grant select, insert (relation, action, key, old, new), update (id), delete on %s to public',
      own_changes);
  end if;
  if not has_schema_privilege('public', 'plank', 'usage') then
    grant usage on schema plank to public;
    grant select on sequence plank.outbox_id_seq to public;
  end if;
  for f in select c from plank.capture_helpers() c where not has_function_privilege('public', c, 'execute') loop
    execute format('grant execute on function %s to public', f);
  end loop;
end $$;

-- Drops everything that was generated for a table. The table must no longer be attached and must
-- have no triggers of Plank.
create function plank.drop_generated(p_id integer) returns void language plpgsql as $$
declare
  f regprocedure;
begin
  for f in select plank.generated_functions(p_id) loop
    execute format('drop function %s', f);
  end loop;
  if to_regprocedure(format('plank.virtual_%s(record, text)', p_id)) is not null then
    execute format('drop function plank.%I(record, text)', 'virtual_' || p_id);
  end if;
  execute format('drop view if exists plank.%I', 'outbox_' || p_id);
end $$;
