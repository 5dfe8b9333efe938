-- Capture: what is generated for each attached table. 003_images.sql says how its rows are rendered; 007_attach.sql generates it, and makes the
-- triggers.
--
-- Capture runs inside other people's transactions, so a generated function never names a column in a way that could fail:
-- a column renamed or dropped behind Plank's back reads as null (a name is looked for in the row first, and then one query
-- level further out, in the "absent" row) until plank.refresh has run.
--
-- Capture also runs code of the table's owner: to_json looks for a cast of a user's type. So where a superuser attached the table, the
-- generated functions belong to the table's owner, and have his rights and no more. What he may write of plank.outbox is the view
-- plank.outbox_N, which holds changes of this table in the transaction that goes on, and nothing for other roles. A column whose type
-- belongs to somebody without the owner's rights is rendered as text, which runs no code of users. Where no superuser attached it, the
-- functions belong to the role that did, and the doctor says so. (One role for all tables' capture would need to be made in each
-- cluster, and code that runs as it could read, forge and stop what is captured of other tables.)
--
-- What was measured (32 writers of single rows, PostgreSQL 18, CPU of the backends; a write without a trigger takes 40 µs). Caches
-- are cold then, so that what a function touches counts, and not how long it takes in a loop:
--   transition tables and an empty function 8 µs; the images 13; the insert into the outbox 9, its index 5; whether it is one row 5;
--   each SET of the function 1 to 2; each condition in PL/pgSQL 1; the doorbell's lock 1.
-- Hence a function for each operation, with the SETs which its types need, and one condition behind the insert. From two rows on, old
-- and new are paired by their place and not by their keys: 9 µs a row instead of 11 in statements of 100.
-- Tried and left: triggers for each row are 15 µs cheaper for one row, no cheaper at 10 and a third dearer at 100; images as json cost
-- what text does, as jsonb 5 µs more; "limit 2" instead of looking for a second row gains 3 µs, and then rows must be taken back.

-- The doorbell, see services/listener/doorbell.ts. Holding the lock exclusively means "ring"; getting it shared means that the
-- listener polls, and that it cannot stop polling before this transaction has ended.
create function plank.ring() returns void language plpgsql as $$
begin
  if not pg_try_advisory_xact_lock_shared(1886151019, 1) then  -- 'plnk', bell
    perform pg_notify('plank', '');
  end if;
end $$;

-- SQL of the changes where keys have changed: rows are paired by their keys.
create function plank.by_key_sql(p_id integer, p_old text, p_new text) returns text language sql immutable as $$
  select format($s$
        select %1$s as relation, case when o.image is null then 'I'::"char" when n.image is null then 'D' else 'U' end as action,
               coalesce(n.key, o.key) as key, o.image as old, n.image as new
        from (%2$s) o full join (%3$s) n on n.key collate "C" = o.key collate "C"
        order by n.image is not null$s$, p_id, p_old, p_new)
$$;

-- The same where a row is in each table more than once.
create function plank.twice_sql(p_id integer, p_old text, p_new text) returns text language sql immutable as $$
  select format($s$
          with o as (select *, row_number() over () as step from (%2$s) o),
               n as (select *, row_number() over () as step from (%3$s) n),
               steps as (select step, o.key as old_key, o.image as was, n.key as new_key, n.image as became,
                                o.image is not null and n.image is not null and o.key is not distinct from n.key as stays
                         from o full join n using (step))
          select %1$s, s.action, s.key, s.was, s.became from (
            select step, 1 as part, 'U'::"char" as action, new_key as key, was, became from steps where stays
            union all
            select step, 2, 'I', new_key, null, became from steps where became is not null and not stays
            union all
            -- keys may shift: what was there before the statement makes room first
            select step, case when exists (select from n where n.step < s.step and n.key = s.old_key and n.image::text = s.was::text) then 1 else 0 end,
                   'D', old_key, was, null from steps s where was is not null and not stays
          ) s order by part > 0, step, part$s$, p_id, p_old, p_new)
$$;

-- (Re)writes the capture functions of one attached table, plank.capture_N_insert() and so on, and plank.current_N(key).
create function plank.generate(a plank.attached) returns void language plpgsql as $$
declare
  r record := plank.row_sql(a, 'r', '');
  key text := plank.key_sql(a, 'r', '');
  -- of the columns that are named: of all, or where rows are rendered as they are and cannot be large, of the key, also where it is gone
  absent text := (select string_agg(format('null::text as %I', name), ', ') from (
                  select unnest(a.key_columns) as name union
                  select attname from pg_attribute where attrelid = a.relation and attnum > 0 and not attisdropped
                  and (not plank.is_plain_layout(a) or r.suspect is not null)) c);
  rows   text := 'select i.* from (select %s) absent cross join lateral (select %s as key, %s as image from plank_%s r%s) i';
  -- ("offset 0": a whole row that is taken through a join to be rendered behind it is read, however large)
  old_rows text := format(rows, absent, key, r.image, 'old', ' offset 0');
  new_rows text := format(rows, absent, key, r.image, 'new', ' offset 0');
  -- To prepare what a large row needs costs each statement 3 to 7 µs. So first those that may be large are left out, where there is
  -- one it is remembered (in front of what nested statements remember, which is looked at anyway), and all is done over.
  suspect text := r.suspect;
  but_large text := case when suspect is null then '' else format($s$ where (%s) is not true$s$, suspect) end;
  and_tell  text := case when suspect is null then '' else format($s$ where case when %s then
        set_config('plank.nested_%2$s', '!' || ltrim(coalesce(current_setting('plank.nested_%2$s', true), ''), '!'), true) is null else true end$s$,
        suspect, a.id) end;
  small_old text := format(rows, absent, key, r.whole, 'old', but_large);
  small_new text := format(rows, absent, key, r.whole, 'new', but_large);
  told_old  text := format(rows, absent, key, r.whole, 'old', and_tell);
  told_new  text := format(rows, absent, key, r.whole, 'new', and_tell);
  start_over text := case when suspect is null then '' else format($s$
      if current_setting('plank.nested_%1$s', true) ^@ '!' then
        perform set_config('plank.nested_%1$s', ltrim(current_setting('plank.nested_%1$s'), '!'), true);
        delete from plank.outbox_%1$s where wrote > 0 and id in (select id from plank.outbox_%1$s order by id desc limit wrote);$s$, a.id) end;
  -- Only where a cascade can delete a row which another of the same statement has updated.
  cascades boolean := exists (select from pg_constraint where conrelid = a.relation and contype = 'f' and confdeltype = 'c')
                  and exists (select from pg_constraint where conrelid = a.relation and contype = 'f' and (confdeltype in ('n', 'd') or confupdtype in ('c', 'n', 'd')));
  after_update text := case when cascades then format($s$
      if current_setting('plank.deleted_%1$s', true) <> '' then
        perform plank.rechain_%1$s(current_setting('plank.deleted_%1$s')::bigint, 0, null), set_config('plank.deleted_%1$s', '', true);
      end if;$s$, a.id) else '' end;
  before_delete text := case when cascades then format($s$
      perform set_config('plank.deleted_%1$s', plank.last_id()::text, true);$s$, a.id) else '' end;
  -- Two rows may have one key until the transaction ends. What that does to the order can be told from when something has both come and gone.
  is_deferrable boolean := exists (select from pg_index where indrelid = a.relation and indisprimary and not indimmediate);
  late   text := case when is_deferrable then format($s$
        if tg_op = 'INSERT' then
          perform set_config('plank.came_%1$s', 'yes', true);
        elsif tg_op = 'DELETE' then
          perform set_config('plank.gone_%1$s', 'yes', true);
        elsif moved then
          perform set_config('plank.came_%1$s', 'yes', true), set_config('plank.gone_%1$s', 'yes', true);
        end if;
        if current_setting('plank.came_%1$s', true) <> '' and current_setting('plank.gone_%1$s', true) <> '' then
          tids := plank.rechain_%1$s(0, coalesce(mark, plank.mark(wrote)),
                                     case when mark is not null then nullif(nullif(current_setting('plank.tids_%1$s', true), ''), 'many')::tid[] end, true);
          if tids is not null and mark is not null then
            perform set_config('plank.tids_%1$s', tids::text, true);
          end if;
        end if;$s$, a.id) else '' end;
  -- True where something was captured and nothing is left to do: what nearly every write ends with. One expression, as each costs
  -- as much as a look into an index. The lock is the doorbell's.
  done   text := format($s$found and pg_trigger_depth() = 1 and coalesce(current_setting('plank.nested_%1$s', true), '') = ''
         and pg_try_advisory_xact_lock_shared(1886151019, 1)$s$, a.id) || case when is_deferrable then ' and false' else '' end;
  finish text := format($s$
      if wrote > 0 then
        if pg_trigger_depth() > 1 or current_setting('plank.nested_%1$s', true) <> '' then
          perform plank.settle(%1$s, pg_trigger_depth(), tg_op, wrote);
        end if;%2$s
        perform plank.ring();
      end if;
      return null;$s$, a.id, late);
  -- The view costs 2 to 3 µs, so not for who may write all of the outbox. (Who gets what is his by "reassign owned" gets both.)
  target text := case when plank.captured_as(a.relation) = (select pg_get_userbyid(relowner) from pg_class where oid = 'plank.outbox'::regclass)
                 then 'outbox' else 'outbox_' || a.id end;
  -- A serializable transaction reads nothing of the outbox by an index (002_reorder.sql), so it keeps the places of what it writes.
  place  text := case target when 'outbox' then 'ctid' else 'tid' end;
  writes text := format($s$
        with written as (insert into plank.%I (relation, action, key, old, new) %%s returning %s as at)
        select count(*), array_agg(at) into wrote, tids from written;$s$, target, place);
  -- each old row and the new one that it became
  steps  text := format('(select *, row_number() over () as step from (%s) o) o full join (select *, row_number() over () as step from (%s) n) n using (step)', old_rows, new_rows);
  serializable text;
  op     text;
  body   text;
begin
  perform plank.generate_virtual(a);
  foreach op in array array['insert', 'update', 'delete', 'truncate'] loop
    body := case op
    when 'insert' then format($s$
      insert into plank.%4$I (relation, action, key, new)
      select %1$s, 'I', n.key, n.image from (%2$s) n;
      if %3$s then
        return null;
      end if;
      get diagnostics wrote = row_count;$s$, a.id, told_new, done, target)
      || case when suspect is null then '' else start_over || format($s$
        insert into plank.%3$I (relation, action, key, new)
        select %1$s, 'I', n.key, n.image from (%2$s) n;
        get diagnostics wrote = row_count;
      end if;$s$, a.id, new_rows, target) end
    when 'update' then format($s$
      -- What is by far the most frequent, one small row that keeps its key, needs no join of all with all. (A comparison that is
      -- more than "=" keeps the planner from hashing or sorting for it.)
      insert into plank.%6$I (relation, action, key, old, new)
      select %1$s, 'U', n.key, o.image, n.image from (%9$s) o cross join (%10$s) n
      where not exists (select from plank_old offset 1) and (n.key collate "C" = o.key collate "C") is true;
      if %5$s then
        return null;
      end if;
      get diagnostics wrote = row_count;
      if wrote = 0 then
        -- The tables hold the steps in the order in which they were made, so the n-th old row became the n-th new one.
        -- (A full join whose condition the planner cannot turn into an inner one's: a plan that was kept from a statement of few
        -- rows would loop, and make every image anew for each row of the other side.)
        insert into plank.%6$I (relation, action, key, old, new)
        select %1$s, 'U', n.key, o.image, n.image
        from (select *, row_number() over () as step from (%2$s) o) o full join (select *, row_number() over () as step from (%3$s) n) n using (step)
        where coalesce(n.key collate "C" = o.key collate "C", false)
        order by step;
        get diagnostics wrote = row_count;
      end if;
      -- Else keys have changed, or a row has gone elsewhere.
      if wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new) then
        moved := true;
        delete from plank.outbox_%1$s where wrote > 0 and id in (select id from plank.outbox_%1$s order by id desc limit wrote);
        insert into plank.%6$I (relation, action, key, old, new)
        %7$s;
        get diagnostics wrote = row_count;
        -- Two cascades of one statement (on delete set null, on update cascade) can change one row twice. It is then twice in
        -- each table, and the join has mixed up its images. Only where changes are not as many as rows can that be.
        if wrote > 1 and (wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new)) and (
             exists (select from (%2$s) o group by o.key having count(*) > 1) or
             exists (select from (%3$s) n group by n.key having count(*) > 1)) then
          delete from plank.outbox_%1$s where id in (select id from plank.outbox_%1$s order by id desc limit wrote);
          insert into plank.%6$I (relation, action, key, old, new)
          %8$s;
          get diagnostics wrote = row_count;
        end if;
      end if;%4$s
      $s$, a.id, old_rows, new_rows, after_update, case when cascades then 'false' else done end, target,
      plank.by_key_sql(a.id, old_rows, new_rows), plank.twice_sql(a.id, old_rows, new_rows), small_old, small_new)
    when 'delete' then format($s$%4$s
      insert into plank.%5$I (relation, action, key, old)
      select %1$s, 'D', o.key, o.image from (%2$s) o;
      if %3$s then
        return null;
      end if;
      get diagnostics wrote = row_count;$s$, a.id, told_old, done, before_delete, target)
      || case when suspect is null then '' else start_over || format($s$
        insert into plank.%3$I (relation, action, key, old)
        select %1$s, 'D', o.key, o.image from (%2$s) o;
        get diagnostics wrote = row_count;
      end if;$s$, a.id, old_rows, target) end
    else format($s$
      insert into plank.%2$I (relation, action)
      -- The trigger's argument says that this is the whole table, and no partition. With the whole table its partitions are truncated,
      -- of which nothing is left to tell.
      select %1$s, case when tg_nargs = 1 then 'T'::"char" else 'R' end
      where tg_nargs = 1 or not exists (
        select from (select action from plank.outbox_%1$s order by id desc limit 1) l where l.action in ('T', 'R'));
      get diagnostics wrote = row_count;$s$, a.id, target)
    end;
    serializable := case op
    when 'insert' then format(writes, format($s$select %s, 'I', n.key, null, n.image from (%s) n$s$, a.id, new_rows))
    when 'delete' then before_delete || case when cascades and not is_deferrable then format($s$
        if pg_trigger_depth() = 1 then
          perform set_config('plank.tids_%s', '', true);
        end if;$s$, a.id) else '' end
      || format(writes, format($s$select %s, 'D', o.key, o.image, null from (%s) o$s$, a.id, old_rows))
    when 'truncate' then format(writes, format($s$select %1$s, case when tg_nargs = 1 then 'T'::"char" else 'R' end, null, null, null
          where tg_nargs = 1 or current_setting('plank.truncated_%1$s', true) is distinct from mark::text$s$, a.id))
      || format($s$
        perform set_config('plank.truncated_%s', plank.last_id()::text, true);$s$, a.id)
    else format(writes, format($s$
          select %1$s, 'U', n.key, o.image, n.image from %2$s
          where not exists (select from %2$s where (n.key collate "C" = o.key collate "C") is not true)
          order by step$s$, a.id, steps))
      || format($s$
        moved := wrote = 0;
        if wrote = 0 and (exists (select from (%1$s) o group by o.key having count(*) > 1) or exists (select from (%2$s) n group by n.key having count(*) > 1)) then$s$,
        old_rows, new_rows)
      || format(writes, plank.twice_sql(a.id, old_rows, new_rows)) || '
        elsif wrote = 0 then'
      || format(writes, plank.by_key_sql(a.id, old_rows, new_rows)) || '
        end if;'
    end;
    body := format($s$
      if current_setting('transaction_isolation') = 'serializable' then
        mark := plank.last_id();%s
        if wrote > 0 then
          if pg_trigger_depth() > 1 or current_setting('plank.nested_%s', true) <> '' then
            perform plank.settle(%2$s, pg_trigger_depth(), tg_op, wrote, mark, tids);%s
          end if;%s
          perform plank.ring();
        end if;%s
        return null;
      end if;$s$, serializable, a.id,
      case when cascades or is_deferrable then format($s$
          else
            perform plank.keep_tids(%s, tids);$s$, a.id) else '' end,
      late,
      case when cascades and op = 'update' then format($s$
        if current_setting('plank.deleted_%1$s', true) <> '' then
          tids := plank.rechain_%1$s(current_setting('plank.deleted_%1$s')::bigint, 0, nullif(nullif(current_setting('plank.tids_%1$s', true), ''), 'many')::tid[]);
          perform set_config('plank.deleted_%1$s', '', true);
          if tids is not null then
            perform set_config('plank.tids_%1$s', tids::text, true);
          end if;
        end if;$s$, a.id) else '' end) || body;
    -- as literals: a column may be called "$body$; …", and whoever may alter the table must not write what follows it
    execute format($f$
      create or replace function plank.%I() returns trigger language plpgsql security definer
      set search_path = pg_catalog, pg_temp %s as %L
    $f$, plank.capture_function(a.id, op), plank.image_settings(a), format($s$
      #variable_conflict use_column
      declare
        wrote bigint;
        mark  bigint;
        tids  tid[];
        moved boolean;
      begin%s%s
      end $s$, body, finish));
  end loop;

  execute format($f$
    create or replace function plank.%I(text) returns text[] language sql stable security definer
    set search_path = pg_catalog, pg_temp %s as %L
  $f$, 'current_' || a.id, plank.canonical_settings(), case when (
      select count(*) from pg_attribute where attrelid = a.relation and attname = any (a.key_columns)) < cardinality(a.key_columns) then 'select ''{}''::text[]'
    -- keys that are equal ("a" and "A" of citext, 1.0 and 1.00) are different ones to clients
    else format('select array(select %s from %s t where %s and (%s) collate "C" = $1 limit 2)',
      plank.image_sql(a, 't'), a.relation, plank.key_match(a), plank.key_sql(a, 't')) end);
  perform plank.generate_rechain(a.id);
  perform plank.hand_over(a);
end $$;

-- The generated functions of a table. (By names and hence by an index: a pattern is matched with those of every table.)
create function plank.functions(p_id integer) returns setof regprocedure language sql stable as $$
  select oid::regprocedure from pg_proc where pronamespace = 'plank'::regnamespace and proname = any (array[
    'capture_' || p_id || '_insert', 'capture_' || p_id || '_update', 'capture_' || p_id || '_delete', 'capture_' || p_id || '_truncate',
    'rechain_' || p_id, 'current_' || p_id]::name[])
$$;

-- Whether the current role is the one that a table is captured as.
create function plank.captures(p_id integer) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (select from pg_proc where oid in (select plank.functions(p_id)) and proowner::regrole::text = quote_ident(current_user))
$$;

-- What generated functions call. Whoever they belong to may, also where a database grants new functions to nobody.
create function plank.called() returns setof regprocedure language sql stable as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'plank'::regnamespace and (proname in ('ring', 'settle', 'path', 'path_starts', 'mark', 'last_id', 'keep_tids', 'captures', 'functions',
    'row_bytes', 'raw_size', 'rendered', 'rendered_any', 'partial_image') or proname like 'virtual\_%')
$$;

-- The role that a table is to be captured as: its owner, or who calls this where that is no superuser.
create function plank.captured_as(relation regclass) returns name language sql stable as $$
  select case when r.rolsuper then pg_get_userbyid(c.relowner) else current_user end
  from pg_class c cross join pg_roles r where c.oid = relation and r.rolname = current_user
$$;

-- Gives the generated functions to the role that the table is captured as, with what they may write.
create function plank.hand_over(a plank.attached) returns void language plpgsql as $$
declare
  is_superuser boolean := (select rolsuper from pg_roles where rolname = current_user);
  own_changes  text := format('plank.%I', 'outbox_' || a.id);
  captured_as  name := plank.captured_as(a.relation);
  f            regprocedure;
  grantee      regrole;
begin
  for f in select plank.functions(a.id) loop
    execute format('revoke all on function %s from public', f);
    -- who was let in by a former owner, or by default privileges, would run code of his with the rights of the next
    for grantee in select distinct x.grantee::regrole from pg_proc p cross join aclexplode(p.proacl) x
                   where p.oid = f and x.grantee not in (0, p.proowner) loop
      execute format('revoke all on function %s from %s cascade', f, grantee);
    end loop;
    if is_superuser then
      execute format('alter function %s owner to %I', f, captured_as);
    end if;
  end loop;
  -- Made anew only for another role: it would wait for writers. The name is a shortcut; "reassign owned" gives the functions away, or
  -- the role is renamed, and nothing tells of that. Then it is asked, once for each statement, and not for each row.
  if to_regclass(own_changes) is null or position(format('= %L::name', captured_as) in pg_get_viewdef(to_regclass(own_changes))) = 0 then
    execute format($v$
      create or replace view %1$s with (security_barrier) as select *, ctid as tid from plank.outbox
      where relation = %2$s and xid = pg_current_xact_id() and action = any ('{I,U,D,T,S,R}'::"char"[])
        and (current_user = %3$L::name or (select plank.captures(%2$s))) with check option
    $v$, own_changes, a.id, captured_as);
    if is_superuser then
      execute format('alter view %s owner to %s', own_changes, (select relowner::regrole from pg_class where oid = 'plank.outbox'::regclass));
    end if;
  end if;
  -- not each time, as it would be in the way of others who attach; a dump may have been restored without what was granted
  if not has_any_column_privilege('public', own_changes, 'insert') then
    execute format('grant select, insert (relation, action, key, old, new), update (id), delete on %s to public', own_changes);
  end if;
  if not has_schema_privilege('public', 'plank', 'usage') then
    grant usage on schema plank to public;
    grant select on sequence plank.outbox_id_seq to public;
  end if;
  for f in select c from plank.called() c where not has_function_privilege('public', c, 'execute') loop
    execute format('grant execute on function %s to public', f);
  end loop;
end $$;

-- The name of a capture function.
create function plank.capture_function(p_id integer, p_op text) returns text language sql immutable as $$
  select format('capture_%s_%s', p_id, p_op)
$$;

-- Drops what was generated for a table that is attached no more, and has no triggers.
create function plank.drop_functions(p_id integer) returns void language plpgsql as $$
declare
  f regprocedure;
begin
  for f in select plank.functions(p_id) loop
    execute format('drop function %s', f);
  end loop;
  if to_regprocedure(format('plank.virtual_%s(record, text)', p_id)) is not null then
    execute format('drop function plank.%I(record, text)', 'virtual_' || p_id);
  end if;
  execute format('drop view if exists plank.%I', 'outbox_' || p_id);
end $$;
