-- The problems with the capture of attached tables. Each row has one sentence about a problem, then
-- "; run: " and the statement that repairs the problem. If there are no problems, returns no rows.
-- The doctor, the listener and the tests rely on this form.
create function plank.check() returns table (name text, problem text)
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set timezone = 'UTC'
set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C' as $$
  with attached as materialized (
    select a.*, plank.key_columns(a.relation) as keys, format('select plank.attach(%L)', a.relation) as again
    from plank.attached a join pg_class c on c.oid = a.relation and c.relkind in ('r', 'p')
  ), catalog as materialized (
    select * from plank.catalog
  ), unfit as materialized (
    select a.*, u.problem, u.repair from attached a cross join plank.unfit(a.relation) u
  ), triggers as materialized (
    select a.name as of, a.again, w.*, g.oid, g.tgenabled
    from attached a cross join plank.triggers(a.id, a.relation) w
    left join pg_trigger g on g.tgrelid = w.relation and g.tgname = w.name
    where not exists (select from unfit u where u.id = a.id and u.problem like 'is a partition%')
  ), functions as materialized (
    select a.id, a.name, a.relation, a.again, p.oid, p.proowner
    from attached a cross join plank.generated_functions(a.id) f join pg_proc p on p.oid = f
  ), callers as materialized (
    select proowner from (select distinct proowner from functions) o
    where not exists (
      select from plank.capture_helpers() g where not has_function_privilege(o.proowner, g, 'execute'))
  )
  select a.name, format('the table %s; run: delete from plank.attached where id = %s',
                        case when a.moved then 'is not in this database, which is a restored dump'
                             else 'was dropped' end, a.id)
  from plank.attached a where a.id not in (select id from attached)
  union all
  select name, format('%s has no column %s, which was excluded or read-only in the database of which this one is a '
                      'restored dump, so it is not served; '
                      'run: select plank.attach(%L, exclude => …, read_only => …)',
                      relation, plank.lost_columns(id), relation)
  from attached where excluded is null or read_only is null
  union all
  select name, format('%s was attached in another database, of which this one is a restored dump; run: %s',
                      relation, again)
  from attached where moved and excluded is not null and read_only is not null
  union all
  select name, format('another attached table, %s, has the same name, and only one is served; '
                      'run: select plank.detach(%L)', o.relation, a.relation)
  from attached a
  cross join lateral (select relation from attached o where o.name = a.name and o.id <> a.id limit 1) o
  where a.excluded is not null and a.read_only is not null and a.id not in (select id from catalog)
  union all
  select name, format('%s %s; run: %s', relation, problem, repair) from unfit where repair is not null
  union all
  select name, format('a column of its primary key (%s) is excluded; run: select plank.attach(%L, exclude => …)',
                      array_to_string(keys, ', '), relation)
  from attached a where exists (
    select from pg_attribute t
    where t.attrelid = a.relation and t.attnum = any (a.excluded) and t.attname = any (a.keys))
  union all
  select name, format('its primary key is (%s), but its changes are captured with the key (%s); run: %s',
                      array_to_string(keys, ', '), array_to_string(key_columns, ', '), again)
  from attached where keys <> key_columns and not moved
  union all
  select a.name, format('the table, or a type or partition of it, was altered, and its capture was not updated; '
                        'run: %s', again)
  from attached a join catalog c on c.id = a.id
  where keys = a.key_columns and not moved and (
    shape is distinct from (select * from plank.shape(c)) or code is distinct from (select * from plank.code(a.id))
    -- plank.rendering is empty for most tables, so it is called only if it may have entries
    or (rendering is not null or exists (
          select from pg_attribute t
          where t.attrelid = a.relation and t.attnum > 0 and (t.atttypid >= 16384 or t.attgenerated <> '')))
       and rendering is distinct from plank.rendering(a.relation))
  union all
  select of, format('trigger %s is missing on %s; run: %s', t.name, t.relation, again) from triggers t where oid is null
  union all
  select of, format('trigger %s on %s is not the one that Plank made; run: %s', t.name, t.relation, again)
  from triggers t where pg_get_triggerdef(oid) <> 'CREATE ' || definition
  union all
  select f.name, format('trigger %I on %s captures changes a second time; run: %s',
                        g.tgname, g.tgrelid::regclass, f.again)
  from functions f join pg_trigger g on g.tgfoid = f.oid
  where not exists (select from triggers t where t.relation = g.tgrelid and t.name = g.tgname)
    and not exists (select from unfit u where u.id = f.id and u.problem like 'is a partition%')
  union all
  select of, format('trigger %s is disabled on %s; run: alter table %s enable trigger %s',
                    t.name, t.relation, t.relation, t.name)
  from triggers t where tgenabled in ('D', 'R')
  union all
  select f.name, format('changes of %s are captured as the role %s, which lacks rights that capture needs; run: %s',
                        f.relation, f.proowner::regrole,
                        case when has_table_privilege(f.proowner, f.relation, 'select')
                                  or f.proowner <> (select relowner from pg_class where oid = f.relation) then f.again
                             else format('grant select on %s to %s', f.relation, f.proowner::regrole) end)
  from (select distinct id, name, relation, again, proowner from functions) f
  where not coalesce(has_schema_privilege(f.proowner, 'plank', 'usage')
                     and has_any_column_privilege(
                       f.proowner, to_regclass(format('plank.%I', 'outbox_' || f.id)), 'insert')
                     and has_table_privilege(f.proowner, f.relation, 'select')
                     and f.proowner in (select proowner from callers), false)
  union all
  select a.name, case
      when x.problem is not null
        then format('the policy of the role %s %s, so it allows nothing; run: select plank.allow(%L, %L, …)',
                    p.role, x.problem, a.relation, p.role)
      else format('the policy of the role %s can be used again, and gateways were not notified; run: %s',
                  p.role, a.again) end
  from attached a join plank.policy p on p.attachment = a.id
  cross join lateral (select plank.policy_problem(p) as problem offset 0) x
  where x.problem is not null or p.problem is not null
  union all
  -- Triggers on tables that are not attached. They are left over if a dump was restored without all
  -- of Plank's tables.
  select distinct r.relation::text,
         format('changes of %s are captured, but it is not attached; run: select plank.attach(%L)',
                r.relation, r.relation)
  from pg_trigger g join pg_proc p on p.oid = g.tgfoid cross join lateral (
    select coalesce(pg_partition_root(g.tgrelid), g.tgrelid::regclass) as relation) r
  where p.pronamespace = 'plank'::regnamespace and p.proname ~ '^capture_\d+_[a-z]+$'
    and substring(p.proname from '\d+')::integer not in (select id from plank.attachments)
$$;
