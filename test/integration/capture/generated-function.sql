-- The function that captures UPDATEs of one table, as plank.attach generates it (shared/sql/004_capture.sql):
--
--   create table orders (id bigint primary key, status text, at timestamptz);
--   select plank.attach('orders');
--
-- The function repeats the queries of old and new rows. This file shows each of them once, and below only its name:
--
--   old_rows:
--     select i.* from (select null::text as at, null::text as id, null::text as status) absent
--       cross join lateral (select id::pg_catalog.text as key,
--       coalesce(case when greatest(plank.raw_size(status)) > plank.row_bytes() / 12
--       then plank.partial_image(array[plank.rendered_any(id), plank.rendered(status), plank.rendered_any(at)],
--       E'{"\\"id\\"","\\"status\\"","\\"at\\""}'::pg_catalog.text[],
--       '{t,f,f}'::pg_catalog.bool[],
--       true)
--       end, pg_catalog.to_json(r.*)::pg_catalog.text)
--       as image from plank_old r offset 0) i
--
--   new_rows:
--     select i.* from (select null::text as at, null::text as id, null::text as status) absent
--       cross join lateral (select id::pg_catalog.text as key,
--       coalesce(case when greatest(plank.raw_size(status)) > plank.row_bytes() / 12
--       then plank.partial_image(array[plank.rendered_any(id), plank.rendered(status), plank.rendered_any(at)],
--       E'{"\\"id\\"","\\"status\\"","\\"at\\""}'::pg_catalog.text[],
--       '{t,f,f}'::pg_catalog.bool[],
--       true)
--       end, pg_catalog.to_json(r.*)::pg_catalog.text)
--       as image from plank_new r offset 0) i
--
--   small_old_rows:
--     select i.* from (select null::text as at, null::text as id, null::text as status) absent
--       cross join lateral (select id::pg_catalog.text as key,
--       pg_catalog.to_json(r.*)::pg_catalog.text
--       as image from plank_old r
--       where (greatest(plank.raw_size(status)) > plank.row_bytes() / 12) is not true) i
--
--   small_new_rows:
--     select i.* from (select null::text as at, null::text as id, null::text as status) absent
--       cross join lateral (select id::pg_catalog.text as key,
--       pg_catalog.to_json(r.*)::pg_catalog.text
--       as image from plank_new r
--       where (greatest(plank.raw_size(status)) > plank.row_bytes() / 12) is not true) i
--
-- Not to be edited: generated-function.test.ts compares this file with what plank.attach generates. To write it again:
-- npx vitest run --project integration test/integration/capture/generated-function.test.ts --update

CREATE OR REPLACE FUNCTION plank.capture_2_update()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET "TimeZone" TO 'UTC'
AS $function$
      #variable_conflict use_column
      declare
        wrote bigint;
        mark  bigint;
        tids  tid[];
        moved boolean;
      begin
      -- A serializable transaction avoids reading the outbox through an index (002_reorder.sql). So
      -- this branch decides from the transition tables what to write, and keeps the places of the
      -- events.
      if current_setting('transaction_isolation') = 'serializable' then
        mark := plank.last_id();
        with written as (insert into plank.outbox (relation, action, key, old, new)
          select 2, 'U', n.key, o.image, n.image from (select *, row_number() over () as step from (old_rows) o) o
            full join (select *, row_number() over () as step from (new_rows) n) n using (step)
          where not exists (
            select from (select *, row_number() over () as step from (old_rows) o) o
            full join (select *, row_number() over () as step from (new_rows) n) n using (step)
            where (n.key collate "C" = o.key collate "C") is not true)
          order by step returning ctid as at)
        select count(*), array_agg(at) into wrote, tids from written;
        moved := wrote = 0;
        if wrote = 0 and (exists (select from (old_rows) o group by o.key having count(*) > 1)
                          or exists (select from (new_rows) n group by n.key having count(*) > 1)) then
        with written as (insert into plank.outbox (relation, action, key, old, new)
          with o as (select *, row_number() over () as step from (old_rows) o),
               n as (select *, row_number() over () as step from (new_rows) n),
               steps as (select step, o.key as old_key, o.image as was, n.key as new_key, n.image as became,
                           o.image is not null and n.image is not null and o.key is not distinct from n.key as stays
                         from o full join n using (step))
          select 2, s.action, s.key, s.was, s.became from (
            select step, 1 as part, 'U'::"char" as action, new_key as key, was, became from steps where stays
            union all
            select step, 2, 'I', new_key, null, became from steps where became is not null and not stays
            union all
            -- A row may get the key that another row had. So the deletes (D) of rows that existed
            -- before the statement come first (part 0).
            select step, case when exists (select from n where n.step < s.step and n.key = s.old_key
                                                         and n.image::text = s.was::text) then 1 else 0 end,
                   'D', old_key, was, null from steps s where was is not null and not stays
          ) s order by part > 0, step, part returning ctid as at)
        select count(*), array_agg(at) into wrote, tids from written;
        elsif wrote = 0 then
        with written as (insert into plank.outbox (relation, action, key, old, new)
        select 2 as relation,
               case when o.image is null then 'I'::"char" when n.image is null then 'D' else 'U' end as action,
               coalesce(n.key, o.key) as key, o.image as old, n.image as new
        from (old_rows) o full join (new_rows) n on n.key collate "C" = o.key collate "C"
        order by n.image is not null returning ctid as at)
        select count(*), array_agg(at) into wrote, tids from written;
        end if;
        if wrote > 0 then
          if pg_trigger_depth() > 1 or current_setting('plank.nested_2', true) <> '' then
            perform plank.reorder(2, pg_trigger_depth(), tg_op, wrote, mark, tids);
          end if;
          perform plank.ring();
        end if;
        return null;
      end if;
      -- By far the most frequent case is one small row that keeps its key. This case needs no join
      -- of all old rows with all new rows. "is true" keeps the planner from preparing a hash or
      -- merge join.
      insert into plank.outbox (relation, action, key, old, new)
      select 2, 'U', n.key, o.image, n.image from (small_old_rows) o cross join (small_new_rows) n
      where not exists (select from plank_old offset 1) and (n.key collate "C" = o.key collate "C") is true;
      if found and pg_trigger_depth() = 1
         and coalesce(current_setting('plank.nested_2', true), '') = ''
         and pg_try_advisory_xact_lock_shared(1886151019, 1) then
        return null;
      end if;
      get diagnostics wrote = row_count;
      if wrote = 0 then
        -- Both transition tables hold the rows in the order in which they were updated, so the n-th
        -- old row became the n-th new row. "coalesce" keeps the planner from turning this full join
        -- into an inner join. An inner join may be planned as a nested loop for a statement of few
        -- rows. If that plan were kept, a later statement would render every image again for each
        -- row of the other side.
        insert into plank.outbox (relation, action, key, old, new)
        select 2, 'U', n.key, o.image, n.image
        from (select *, row_number() over () as step from (old_rows) o) o
        full join (select *, row_number() over () as step from (new_rows) n) n using (step)
        where coalesce(n.key collate "C" = o.key collate "C", false)
        order by step;
        get diagnostics wrote = row_count;
      end if;
      -- If the number of changes written so far is not the number of rows, keys have changed, or a
      -- row has moved to another partition. Then all changes are written again, with rows paired by
      -- their keys.
      if wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new) then
        moved := true;
        delete from plank.outbox_2
        where wrote > 0 and id in (select id from plank.outbox_2 order by id desc limit wrote);
        insert into plank.outbox (relation, action, key, old, new)

        select 2 as relation,
               case when o.image is null then 'I'::"char" when n.image is null then 'D' else 'U' end as action,
               coalesce(n.key, o.key) as key, o.image as old, n.image as new
        from (old_rows) o full join (new_rows) n on n.key collate "C" = o.key collate "C"
        order by n.image is not null;
        get diagnostics wrote = row_count;
        -- Two cascades of one statement (on delete set null, on update cascade) can change one row
        -- twice. Then the row is twice in each transition table, and the join by keys has mixed up
        -- its images. This is possible only if the number of changes differs from the number of rows.
        if wrote > 1 and (wrote <> (select count(*) from plank_old) or wrote <> (select count(*) from plank_new)) and (
             exists (select from (old_rows) o group by o.key having count(*) > 1) or
             exists (select from (new_rows) n group by n.key having count(*) > 1)) then
          delete from plank.outbox_2 where id in (select id from plank.outbox_2 order by id desc limit wrote);
          insert into plank.outbox (relation, action, key, old, new)

          with o as (select *, row_number() over () as step from (old_rows) o),
               n as (select *, row_number() over () as step from (new_rows) n),
               steps as (select step, o.key as old_key, o.image as was, n.key as new_key, n.image as became,
                           o.image is not null and n.image is not null and o.key is not distinct from n.key as stays
                         from o full join n using (step))
          select 2, s.action, s.key, s.was, s.became from (
            select step, 1 as part, 'U'::"char" as action, new_key as key, was, became from steps where stays
            union all
            select step, 2, 'I', new_key, null, became from steps where became is not null and not stays
            union all
            -- A row may get the key that another row had. So the deletes (D) of rows that existed
            -- before the statement come first (part 0).
            select step, case when exists (select from n where n.step < s.step and n.key = s.old_key
                                                         and n.image::text = s.was::text) then 1 else 0 end,
                   'D', old_key, was, null from steps s where was is not null and not stays
          ) s order by part > 0, step, part;
          get diagnostics wrote = row_count;
        end if;
      end if;

      if wrote > 0 then
        if pg_trigger_depth() > 1 or current_setting('plank.nested_2', true) <> '' then
          perform plank.reorder(2, pg_trigger_depth(), tg_op, wrote);
        end if;
        perform plank.ring();
      end if;
      return null;
      end $function$
