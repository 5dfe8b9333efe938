-- Capture: the functions that are generated for each attached table.
--
-- test/integration/capture/generated-function.sql shows one of these functions, generated for a
-- sample table. Read that file beside this one. 003_images.sql renders rows. 005_capture_rights.sql
-- says with whose rights capture runs. 007_attach.sql calls plank.generate and makes the triggers.
--
-- Capture runs inside other people's transactions, so a generated function never names a column in
-- a way that could fail. If a column was renamed or dropped and Plank did not notice, the column
-- reads as null until plank.refresh has run. This works because Postgres looks a name up in the row
-- first. If the row has no such column, Postgres looks one query level further out, in the subquery
-- "absent", which has a null under every name.
--
-- Measured CPU time of the backends (32 writers of single rows, PostgreSQL 18; a write without a
-- trigger takes 40 µs). Caches are cold under such a load. So the amount of memory that a function
-- touches counts more than the function's time in a loop:
--   transition tables and an empty function 8 µs; the images 13; the insert into the outbox 9, its index 5;
--   checking for a single row 5; each SET of the function 1 to 2; each condition in PL/pgSQL 1; the doorbell's lock 1.
-- Therefore there is one function for each operation, with only the SETs that the table's types
-- need, and one condition after the insert. In statements of two or more rows, old and new rows are
-- paired by their place and not by their keys: 9 µs a row instead of 11 in statements of 100 rows.
--
-- Tried and rejected: Row triggers take 15 µs less for one row, the same time for 10 rows, and a
-- third more for 100 rows. Images of type json cost as much as text, of type jsonb 5 µs more.
-- "limit 2" instead of the check for a second row saves 3 µs, but then inserted rows must sometimes
-- be deleted again.

-- The doorbell, see services/listener/doorbell.ts. A listener that waits for notifications holds
-- the lock exclusively. If this transaction gets the lock shared, the listener is polling. The
-- listener then cannot take the lock exclusively, and so cannot stop polling, before this
-- transaction has ended.
create function plank.ring() returns void language plpgsql as $$
begin
  if not pg_try_advisory_xact_lock_shared(1886151019, 1) then  -- 'plnk', bell
    perform pg_notify('plank', '');
  end if;
end $$;

-- SQL of the changes of a statement that has changed keys. Old and new rows are paired by their
-- keys.
create function plank.by_key_sql(p_id integer, p_old text, p_new text) returns text language sql immutable as $$
  select format($s$
        select %1$s as relation,
               case when o.image is null then 'I'::"char" when n.image is null then 'D' else 'U' end as action,
               coalesce(n.key, o.key) as key, o.image as old, n.image as new
        from (%2$s) o full join (%3$s) n on n.key collate "C" = o.key collate "C"
        order by n.image is not null$s$, p_id, p_old, p_new)
$$;

-- SQL of the changes of a statement in which a row occurs more than once in each transition table.
-- Old and new rows are paired by their place in the transition tables.
create function plank.changed_twice_sql(p_id integer, p_old text, p_new text) returns text language sql immutable as $$
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
            -- A row may get the key that another row had. So the deletes (D) of rows that existed
            -- before the statement come first (part 0).
            select step, case when exists (select from n where n.step < s.step and n.key = s.old_key
                                                         and n.image::text = s.was::text) then 1 else 0 end,
                   'D', old_key, was, null from steps s where was is not null and not stays
          ) s order by part > 0, step, part$s$, p_id, p_old, p_new)
$$;

-- (Re)writes the functions of one attached table: plank.capture_N_insert() and so on,
-- plank.current_N(key), plank.reorder_N and plank.virtual_N.
create function plank.generate(a plank.attached) returns void language plpgsql as $$
declare
  r record := plank.row_sql(a, 'r', '');
  key text := plank.key_sql(a, 'r', '');
  -- SQL of a null for each column that the function names. The function always names the columns of
  -- the key, including those that no longer exist. It also names all other columns, unless rows are
  -- rendered as a whole and cannot be large.
  absent text := (
    select string_agg(format('null::text as %I', name), ', ') from (
      select unnest(a.key_columns) as name union
      select attname from pg_attribute where attrelid = a.relation and attnum > 0 and not attisdropped
      and (not plank.is_plain_layout(a) or r.suspect is not null)) c);
  rows   text := 'select i.* from (select %s) absent '
              || 'cross join lateral (select %s as key, %s as image from plank_%s r%s) i';
  -- "offset 0" makes Postgres render rows before it joins them. If a whole row goes through a join
  -- first, Postgres reads all of the row, however large it is.
  old_rows text := format(rows, absent, key, r.image, 'old', ' offset 0');
  new_rows text := format(rows, absent, key, r.image, 'new', ' offset 0');
  -- The code for large rows costs each statement 3 to 7 µs to prepare. So a first insert without
  -- that code skips the rows that may be large. If it skips a row, it sets a flag. Then all rows
  -- are written again, with the code for large rows. The flag is a "!" at the start of the setting
  -- plank.nested_N (002_reorder.sql), because the function reads that setting anyway.
  suspect text := r.suspect;
  skip_large text := case when suspect is null then '' else format($s$ where (%s) is not true$s$, suspect) end;
  skip_and_flag text := case when suspect is null then '' else format($s$ where case when %s then
        set_config('plank.nested_%2$s',
                   '!' || ltrim(coalesce(current_setting('plank.nested_%2$s', true), ''), '!'), true) is null
        else true end$s$, suspect, a.id) end;
  small_old    text := format(rows, absent, key, r.whole, 'old', skip_large);
  small_new    text := format(rows, absent, key, r.whole, 'new', skip_large);
  flagging_old text := format(rows, absent, key, r.whole, 'old', skip_and_flag);
  flagging_new text := format(rows, absent, key, r.whole, 'new', skip_and_flag);
  if_flagged   text := case when suspect is null then '' else format($s$
      if current_setting('plank.nested_%1$s', true) ^@ '!' then
        perform set_config('plank.nested_%1$s', ltrim(current_setting('plank.nested_%1$s'), '!'), true);
        delete from plank.outbox_%1$s
        where wrote > 0 and id in (select id from plank.outbox_%1$s order by id desc limit wrote);$s$, a.id) end;
  -- Whether one cascade can delete a row that another cascade of the same statement has updated.
  cascades boolean :=
    exists (select from pg_constraint where conrelid = a.relation and contype = 'f' and confdeltype = 'c')
    and exists (select from pg_constraint where conrelid = a.relation and contype = 'f'
                and (confdeltype in ('n', 'd') or confupdtype in ('c', 'n', 'd')));
  after_update text := case when cascades then format($s$
      if current_setting('plank.deleted_%1$s', true) <> '' then
        perform plank.reorder_%1$s(current_setting('plank.deleted_%1$s')::bigint, 0, null),
                set_config('plank.deleted_%1$s', '', true);
      end if;$s$, a.id) else '' end;
  before_delete text := case when cascades then format($s$
      perform set_config('plank.deleted_%1$s', plank.last_id()::text, true);$s$, a.id) else '' end;
  -- With a deferrable key, two rows may have the same key until the transaction ends. Such rows can
  -- put events out of order only after the transaction has both added and removed keys.
  is_deferrable boolean :=
    exists (select from pg_index where indrelid = a.relation and indisprimary and not indimmediate);
  deferrable_keys text := case when is_deferrable then format($s$
        if tg_op = 'INSERT' then
          perform set_config('plank.came_%1$s', 'yes', true);
        elsif tg_op = 'DELETE' then
          perform set_config('plank.gone_%1$s', 'yes', true);
        elsif moved then
          perform set_config('plank.came_%1$s', 'yes', true), set_config('plank.gone_%1$s', 'yes', true);
        end if;
        if current_setting('plank.came_%1$s', true) <> '' and current_setting('plank.gone_%1$s', true) <> '' then
          tids := plank.reorder_%1$s(0, coalesce(mark, plank.mark(wrote)), case when mark is not null
            then nullif(nullif(current_setting('plank.tids_%1$s', true), ''), 'many')::tid[] end, true);
          if tids is not null and mark is not null then
            perform set_config('plank.tids_%1$s', tids::text, true);
          end if;
        end if;$s$, a.id) else '' end;
  -- SQL that is true if something was captured and nothing is left to do. This is the case for
  -- nearly every write. The SQL is one expression, because each PL/pgSQL expression costs as much
  -- as an index lookup. The lock is the doorbell's: if the lock is granted, the listener does not
  -- need a notification.
  is_done text := format($s$found and pg_trigger_depth() = 1
         and coalesce(current_setting('plank.nested_%1$s', true), '') = ''
         and pg_try_advisory_xact_lock_shared(1886151019, 1)$s$, a.id)
         || case when is_deferrable then ' and false' else '' end;
  finish text := format($s$
      if wrote > 0 then
        if pg_trigger_depth() > 1 or current_setting('plank.nested_%1$s', true) <> '' then
          perform plank.reorder(%1$s, pg_trigger_depth(), tg_op, wrote);
        end if;%2$s
        perform plank.ring();
      end if;
      return null;$s$, a.id, deferrable_keys);
  -- Writing through the view costs 2 to 3 µs. So if capture runs as the owner of the outbox, it
  -- writes to the outbox itself, because the owner has every right on the outbox anyway. (If the
  -- owner's objects pass to another role by "reassign owned", that role gets both the functions and
  -- the outbox.)
  target text := case when plank.capture_role(a.relation) =
                   (select pg_get_userbyid(relowner) from pg_class where oid = 'plank.outbox'::regclass)
                 then 'outbox' else 'outbox_' || a.id end;
  -- A serializable transaction avoids reading the outbox through an index (002_reorder.sql). So it
  -- keeps the places of its events.
  tid_column text := case target when 'outbox' then 'ctid' else 'tid' end;
  write_and_count text := format($s$
        with written as (insert into plank.%I (relation, action, key, old, new) %%s returning %s as at)
        select count(*), array_agg(at) into wrote, tids from written;$s$, target, tid_column);
  -- each old row beside the new row that it became
  steps  text := format($s$(select *, row_number() over () as step from (%s) o) o
            full join (select *, row_number() over () as step from (%s) n) n using (step)$s$, old_rows, new_rows);
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
      get diagnostics wrote = row_count;$s$, a.id, flagging_new, is_done, target)
      || case when suspect is null then '' else if_flagged || format($s$
        insert into plank.%3$I (relation, action, key, new)
        select %1$s, 'I', n.key, n.image from (%2$s) n;
        get diagnostics wrote = row_count;
      end if;$s$, a.id, new_rows, target) end
    when 'update' then format($s$
      -- By far the most frequent case is one small row that keeps its key. This case needs no join
      -- of all old rows with all new rows. "is true" keeps the planner from preparing a hash or
      -- merge join.
      insert into plank.%6$I (relation, action, key, old, new)
      select %1$s, 'U', n.key, o.image, n.image from (%9$s) o cross join (%10$s) n
      where not exists (select from plank_old offset 1) and (n.key collate "C" = o.key collate "C") is true;
      if %5$s then
        return null;
      end if;
      get diagnostics wrote = row_count;
      if wrote = 0 then
        -- Both transition tables hold the rows in the order in which they were updated, so the n-th
        -- old row became the n-th new row. "coalesce" keeps the planner from turning this full join
        -- into an inner join. An inner join may be planned as a nested loop for a statement of few
        -- rows. If that plan were kept, a later statement would render every image again for each
        -- row of the other side.
        insert into plank.%6$I (relation, action, key, old, new)
        select %1$s, 'U', n.key, o.image, n.image
        from (select *, row_number() over () as step from (%2$s) o) o
        full join (select *, row_number() over () as step from (%3$s) n) n using (step)
        where coalesce(n.key collate "C" = o.key collate "C", false)
        order by step;
        get diagnostics wrote = row_count;
      end if;
      -- If the number of changes written so far is not the number of rows, keys have changed, or a
      -- row has moved to another partition. Then all changes are written again, with rows paired by
      -- their keys.
      if wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new) then
        moved := true;
        delete from plank.outbox_%1$s
        where wrote > 0 and id in (select id from plank.outbox_%1$s order by id desc limit wrote);
        insert into plank.%6$I (relation, action, key, old, new)
        %7$s;
        get diagnostics wrote = row_count;
        -- Two cascades of one statement (on delete set null, on update cascade) can change one row
        -- twice. Then the row is twice in each transition table, and the join by keys has mixed up
        -- its images. This is possible only if the number of changes differs from the number of rows.
        if wrote > 1 and (wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new)) and (
             exists (select from (%2$s) o group by o.key having count(*) > 1) or
             exists (select from (%3$s) n group by n.key having count(*) > 1)) then
          delete from plank.outbox_%1$s where id in (select id from plank.outbox_%1$s order by id desc limit wrote);
          insert into plank.%6$I (relation, action, key, old, new)
          %8$s;
          get diagnostics wrote = row_count;
        end if;
      end if;%4$s
      $s$, a.id, old_rows, new_rows, after_update, case when cascades then 'false' else is_done end, target,
      plank.by_key_sql(a.id, old_rows, new_rows), plank.changed_twice_sql(a.id, old_rows, new_rows),
      small_old, small_new)
    when 'delete' then format($s$%4$s
      insert into plank.%5$I (relation, action, key, old)
      select %1$s, 'D', o.key, o.image from (%2$s) o;
      if %3$s then
        return null;
      end if;
      get diagnostics wrote = row_count;$s$, a.id, flagging_old, is_done, before_delete, target)
      || case when suspect is null then '' else if_flagged || format($s$
        insert into plank.%3$I (relation, action, key, old)
        select %1$s, 'D', o.key, o.image from (%2$s) o;
        get diagnostics wrote = row_count;
      end if;$s$, a.id, old_rows, target) end
    else format($s$
      insert into plank.%2$I (relation, action)
      -- If the trigger has an argument, this is the attached table itself and not a partition.
      -- Truncating the attached table truncates its partitions too. For these partitions, nothing
      -- more is captured.
      select %1$s, case when tg_nargs = 1 then 'T'::"char" else 'R' end
      where tg_nargs = 1 or not exists (
        select from (select action from plank.outbox_%1$s order by id desc limit 1) l where l.action in ('T', 'R'));
      get diagnostics wrote = row_count;$s$, a.id, target)
    end;
    serializable := case op
    when 'insert' then format(write_and_count, format(
      $s$select %s, 'I', n.key, null, n.image from (%s) n$s$, a.id, new_rows))
    when 'delete' then before_delete || case when cascades and not is_deferrable then format($s$
        if pg_trigger_depth() = 1 then
          perform set_config('plank.tids_%s', '', true);
        end if;$s$, a.id) else '' end
      || format(write_and_count, format($s$select %s, 'D', o.key, o.image, null from (%s) o$s$, a.id, old_rows))
    when 'truncate' then format(write_and_count, format($s$
          select %1$s, case when tg_nargs = 1 then 'T'::"char" else 'R' end, null, null, null
          where tg_nargs = 1 or current_setting('plank.truncated_%1$s', true) is distinct from mark::text$s$, a.id))
      || format($s$
        perform set_config('plank.truncated_%s', plank.last_id()::text, true);$s$, a.id)
    else format(write_and_count, format($s$
          select %1$s, 'U', n.key, o.image, n.image from %2$s
          where not exists (
            select from %2$s
            where (n.key collate "C" = o.key collate "C") is not true)
          order by step$s$, a.id, steps))
      || format($s$
        moved := wrote = 0;
        if wrote = 0 and (exists (select from (%1$s) o group by o.key having count(*) > 1)
                          or exists (select from (%2$s) n group by n.key having count(*) > 1)) then$s$,
        old_rows, new_rows)
      || format(write_and_count, plank.changed_twice_sql(a.id, old_rows, new_rows)) || '
        elsif wrote = 0 then'
      || format(write_and_count, plank.by_key_sql(a.id, old_rows, new_rows)) || '
        end if;'
    end;
    body := format($s$
      -- A serializable transaction avoids reading the outbox through an index (002_reorder.sql). So
      -- this branch decides from the transition tables what to write, and keeps the places of the
      -- events.
      if current_setting('transaction_isolation') = 'serializable' then
        mark := plank.last_id();%s
        if wrote > 0 then
          if pg_trigger_depth() > 1 or current_setting('plank.nested_%s', true) <> '' then
            perform plank.reorder(%2$s, pg_trigger_depth(), tg_op, wrote, mark, tids);%s
          end if;%s
          perform plank.ring();
        end if;%s
        return null;
      end if;$s$, serializable, a.id,
      case when cascades or is_deferrable then format($s$
          else
            perform plank.keep_tids(%s, tids);$s$, a.id) else '' end,
      deferrable_keys,
      case when cascades and op = 'update' then format($s$
        if current_setting('plank.deleted_%1$s', true) <> '' then
          tids := plank.reorder_%1$s(current_setting('plank.deleted_%1$s')::bigint, 0,
                                     nullif(nullif(current_setting('plank.tids_%1$s', true), ''), 'many')::tid[]);
          perform set_config('plank.deleted_%1$s', '', true);
          if tids is not null then
            perform set_config('plank.tids_%1$s', tids::text, true);
          end if;
        end if;$s$, a.id) else '' end) || body;
    -- Bodies are quoted as literals and not in dollar quotes. A column may be called "$body$; …",
    -- which would end a dollar-quoted body, and the rest of the name would run as a statement.
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
  $f$, 'current_' || a.id, plank.canonical_settings(),
    case when (select count(*) from pg_attribute where attrelid = a.relation and attname = any (a.key_columns))
              < cardinality(a.key_columns) then 'select ''{}''::text[]'
    -- To clients, two keys are different if their texts differ, even if the keys are equal in
    -- Postgres ("a" and "A" of citext, 1.0 and 1.00)
    else format('select array(select %s from %s t where %s and (%s) collate "C" = $1 limit 2)',
      plank.image_sql(a, 't'), a.relation, plank.key_match(a), plank.key_sql(a, 't')) end);
  perform plank.generate_reorder(a.id);
  perform plank.set_capture_role(a);
end $$;
