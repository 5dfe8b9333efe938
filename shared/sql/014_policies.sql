-- Policies: which roles of clients may do what with the rows of an attached table, where gateways
-- run with AUTH=jwt. Each change of a policy is an event A in the log, which holds all policies of
-- the table. So every gateway applies the change at the same position.
--
-- These functions check what can be checked without the types of Plank's filters. Gateways check
-- the rest. A policy that a gateway cannot use allows nothing; the gateway logs the reason.

-- Raises an error that names the place in a policy. Never returns.
create function plank.reject(p_path text, p_problem text) returns void language plpgsql as $$
begin
  raise exception 'plank: % %', p_path, p_problem using errcode = 'invalid_parameter_value';
end $$;

-- Checks that an object with a $claim is {"$claim": "name"}.
create function plank.check_claim(p_value jsonb, p_path text) returns void language plpgsql as $$
begin
  if jsonb_typeof(p_value->'$claim') is distinct from 'string' or p_value->>'$claim' = '' then
    perform plank.reject(p_path || '.$claim', 'must be the name of a claim, like "sub" or "org.id"');
  elsif (select count(*) from jsonb_object_keys(p_value)) > 1 then
    perform plank.reject(p_path, 'has other members beside $claim');
  end if;
end $$;

-- The names of the columns that policies of an attached table may use.
create function plank.policy_columns(p_id integer) returns text[]
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select coalesce(array_agg(t.attname::text), '{}') from plank.attached a join pg_attribute t on t.attrelid = a.relation
  where a.id = p_id and t.attnum > 0 and not t.attisdropped and t.attnum <> all (a.excluded)
$$;

-- The attached table that $from names, by its name for clients; null: there is none.
create function plank.table_named(p_name text) returns integer language sql stable as $$
  select id from plank.attached where name = p_name and excluded is not null order by id limit 1
$$;

-- Checks what a column is compared with. p_path: its place, for errors. p_sets: the number of sets
-- that it is nested in. Returns the number of nodes in the set.
create function plank.check_comparison(p_op text, p_operand jsonb, p_path text, p_sets integer) returns integer
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  kind   text := jsonb_typeof(p_operand);
  item   jsonb;
  source integer;
  other  text;
begin
  if p_op not in ('eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'is') then
    perform plank.reject(p_path, 'is no operator: use eq, ne, gt, gte, lt, lte, in or is');
  elsif p_op = 'is' then
    if p_operand not in ('null', '"not null"') then
      perform plank.reject(p_path, 'must be null or "not null"');
    end if;
  elsif kind = 'object' and p_operand ? '$claim' then
    perform plank.check_claim(p_operand, p_path);
  elsif p_op <> 'in' then
    if kind in ('object', 'array', 'null') then
      perform plank.reject(p_path, 'must be a value or {"$claim": …}');
    end if;
  elsif kind = 'array' then
    if jsonb_array_length(p_operand) > 100 then
      perform plank.reject(p_path, 'has too many values: at most 100');
    end if;
    for item in select * from jsonb_array_elements(p_operand) loop
      if jsonb_typeof(item) = 'object' then
        perform plank.check_claim(item, p_path);
      elsif jsonb_typeof(item) in ('array', 'null') then
        perform plank.reject(p_path, 'must be an array of values');
      end if;
    end loop;
  elsif kind <> 'object' then
    perform plank.reject(p_path, 'must be an array, {"$claim": …} or {"$from": …, "select": …, "where": …}');
  else
    select min(k) into other from jsonb_object_keys(p_operand) k where k not in ('$from', 'select', 'where');
    source := plank.table_named(p_operand->>'$from');
    if p_sets >= 2 then
      perform plank.reject(p_path, 'is nested too deeply: at most 2 sets');
    elsif other is not null then
      perform plank.reject(p_path || '.' || left(other, 100), 'is unknown here: use $from, select and where');
    elsif jsonb_typeof(p_operand->'$from') is distinct from 'string' then
      perform plank.reject(p_path || '.$from', 'must be the name of a table');
    elsif source is null then
      perform plank.reject(p_path || '.$from',
        format('names %s, which is not an attached table', left(p_operand->>'$from', 100)));
    elsif jsonb_typeof(p_operand->'select') is distinct from 'string' then
      perform plank.reject(p_path || '.select', 'must be the name of a column');
    elsif p_operand->>'select' <> all (plank.policy_columns(source)) then
      perform plank.reject(p_path || '.select',
        format('is no column of %s that clients may see', p_operand->>'$from'));
    end if;
    return plank.check_filter(source, coalesce(p_operand->'where', '{}'), p_path || '.where', p_sets + 1);
  end if;
  return 0;
end $$;

-- Checks a filter of a policy, with the limits that gateways have. Returns the number of its nodes.
create function plank.check_filter(
  p_id integer, p_filter jsonb, p_path text, p_sets integer default 0, p_depth integer default 1) returns integer
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  columns text[] := plank.policy_columns(p_id);
  nodes   integer := 0;
  name    text;
  value   jsonb;
  item    jsonb;
  at      text;
  op      text;
  operand jsonb;
begin
  if p_depth > 8 then
    perform plank.reject(p_path, 'is too deep: a filter has at most 8 levels');
  elsif jsonb_typeof(p_filter) <> 'object' then
    perform plank.reject(p_path, 'must be an object, like {"owner_id": {"$claim": "sub"}}');
  end if;
  for name, value in select * from jsonb_each(p_filter) loop
    at := p_path || '.' || left(name, 100);
    nodes := nodes + 1;
    if name = 'not' then
      nodes := nodes + plank.check_filter(p_id, value, at, p_sets, p_depth + 1);
    elsif name in ('and', 'or') then
      if jsonb_typeof(value) <> 'array' then
        perform plank.reject(at, 'must be an array of filters');
      end if;
      for item in select * from jsonb_array_elements(value) loop
        nodes := nodes + plank.check_filter(p_id, item, at, p_sets, p_depth + 1);
      end loop;
    elsif regexp_replace(name, '^column:', '') <> all (columns) then
      perform plank.reject(at, 'is no column that clients may see');
    elsif jsonb_typeof(value) = 'array' or value = '{}' then
      perform plank.reject(at, 'must be a value, null, or an object with an operator');
    elsif jsonb_typeof(value) = 'object' and value ? '$claim' then
      perform plank.check_claim(value, at);
    elsif jsonb_typeof(value) = 'object' then
      nodes := nodes - 1;
      for op, operand in select * from jsonb_each(value) loop
        nodes := nodes + 1 + plank.check_comparison(op, operand, at || '.' || left(op, 100), p_sets);
      end loop;
    end if;
  end loop;
  if nodes > 100 then
    perform plank.reject(p_path, 'is too much: a filter has at most 100 nodes');
  end if;
  return nodes;
end $$;

-- The columns that a filter, which was checked, compares: of its own table and of tables that it
-- names by $from. is_searched: an index on the column would help.
create function plank.columns_in(p_id integer, p_filter jsonb)
returns table (used integer, "from" text, "column" text, is_searched boolean) language plpgsql stable as $$
declare
  member text;
  value  jsonb;
  source integer;
begin
  for member, value in select * from jsonb_each(p_filter) loop
    if member = 'not' then
      return query select c.used, c."from", c."column", c.is_searched and c."from" is not null
                   from plank.columns_in(p_id, value) c;
    elsif member in ('and', 'or') then
      return query select c.* from jsonb_array_elements(value) f cross join plank.columns_in(p_id, f) c;
    else
      return query select p_id, null::text, regexp_replace(member, '^column:', ''), case jsonb_typeof(value)
        when 'object' then value - '{ne,is}'::text[] <> '{}' else true end;
      value := case jsonb_typeof(value) when 'object' then value->'in' end;
      if jsonb_typeof(value) = 'object' and value ? '$from' then
        source := plank.table_named(value->>'$from');
        return query
          select source, value->>'$from', value->>'select', false union all
          select c.used, coalesce(c."from", value->>'$from'), c."column", c.is_searched
          from plank.columns_in(source, coalesce(value->'where', '{}')) c;
      end if;
    end if;
  end loop;
end $$;

-- The columns that a policy names, as plank.columns_in returns them.
create function plank.columns_of_policy(p plank.policy)
returns table (used integer, "from" text, "column" text, is_searched boolean) language sql stable as $$
  select c.* from unnest(array[p.read, p.insert, p.update, p.delete, p."check"]) with ordinality f(filter, place)
  cross join plank.columns_in(p.attachment, f.filter) c
  where f.filter is not null
  union all
  select p.attachment, null, x, false from (
    select unnest(p.read_columns || p.write_columns) union select jsonb_object_keys(p.presets)) n(x)
$$;

-- Records what the names in a policy mean in this database's catalog.
create function plank.record_policy(p plank.policy) returns void language sql as $$
  delete from plank.policy_uses u where u.attachment = p.attachment and u.role = p.role;
  insert into plank.policy_uses (attachment, role, used, "from", "column", number)
  select distinct p.attachment, p.role, c.used, c."from", c."column", t.attnum
  from plank.columns_of_policy(p) c join plank.attached a on a.id = c.used
  join pg_attribute t on t.attrelid = a.relation and t.attname = c."column" and t.attnum > 0 and not t.attisdropped;
  update plank.policy q set catalog = plank.this_catalog() where q.attachment = p.attachment and q.role = p.role
$$;

-- Notifies gateways of policies that cannot be used any more, or can be used again, after the table
-- p_id was altered, attached or detached.
create function plank.follow_policies(p_id integer) returns void language plpgsql as $$
declare
  own    integer;
  p      plank.policy;
  answer text;
begin
  for own in select distinct u.attachment from plank.policy_uses u where p_id in (u.used, u.attachment) order by 1 loop
    perform from plank.attachments where id = own for update;
    for p in select * from plank.policy where attachment = own order by role loop
      answer := plank.policy_problem(p);
      if answer is null and own = p_id and p.catalog <> plank.this_catalog() then
        perform plank.record_policy(p);
      end if;
      continue when answer is not distinct from p.problem;
      update plank.policy set problem = answer where attachment = own and role = p.role;
      if answer is not null then
        raise warning 'plank: the policy of the role % for % %, so it allows nothing', p.role,
            (select name from plank.attached where id = own), answer
          using hint = 'Set it again by plank.allow.';
      end if;
      perform plank.announce_policies(own);
    end loop;
  end loop;
end $$;

-- Raises a notice for each table in a policy in which no index begins with a column that the policy
-- searches.
create function plank.notice_unindexed(p plank.policy) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  t record;
begin
  for t in
    select a.relation, string_agg(distinct quote_ident(c."column"), ', ') as names, min(c."column") as first
    from plank.columns_of_policy(p) c join plank.attached a on a.id = c.used
    where c.is_searched
    group by a.relation having not exists (
      select from pg_index i join pg_attribute k on k.attrelid = a.relation and k.attnum = i.indkey[0]
      where i.indrelid = a.relation and i.indisvalid and i.indpred is null and k.attname = any (array_agg(c."column")))
  loop
    raise notice 'plank: no index of % begins with a column that the policy compares (%)', t.relation, t.names
      using hint = format('If the table is large, make one: create index on %s (%I)', t.relation, t.first);
  end loop;
end $$;

-- Writes the event that notifies gateways of changed policies. The caller has locked the table's
-- row of plank.attachments, so the last of these events in the log has the present policies. A
-- transaction writes one event for each table, because its earlier policies never applied.
create function plank.announce_policies(p_id integer) returns void language plpgsql as $$
begin
  update plank.attachments set policies_xid = pg_current_xact_id() where id = p_id;
  update plank.outbox set new = plank.policies_of(p_id)::text
  where xid = pg_current_xact_id() and relation = p_id and action = 'A';
  if not found then
    insert into plank.outbox (relation, action, new) values (p_id, 'A', plank.policies_of(p_id)::text);
  end if;
  perform plank.ring();
end $$;

-- Where the policies of tables last changed in the log: no later than the seq. A table is left out
-- if that is not in the log: its last event A was purged, is not drained yet, or is of the database
-- of which this one is a restored dump.
create function plank.policies_changed() returns table (id integer, seq bigint) language sql stable as $$
  select a.id, l.last_seq from plank.attachments a
  cross join lateral (
    select last_seq from plank.log l
    where pg_visible_in_snapshot(a.policies_xid, l.upto_snap)
      and not pg_visible_in_snapshot(a.policies_xid, l.before_snap)
      and a.policies_xid >= (select pg_snapshot_xmin(before_snap) from plank.log order by first_seq limit 1)
    limit 1) l
  where a.policies_xid is not null and a.catalog = (select plank.this_catalog())
$$;

-- Finds an attached table, and locks its policies and the names in p_filters: DDL of these tables
-- waits until the policies are committed, and then finds out whether it concerns them.
create function plank.lock_policies(relation regclass, variadic p_filters jsonb[] default '{}') returns integer
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  found_id integer := (select a.id from plank.attached a where a.relation = lock_policies.relation);
begin
  if found_id is null then
    raise exception 'plank: table % is not attached', relation
      using errcode = 'undefined_object', hint = format('Attach it first: select plank.attach(%L).', relation);
  end if;
  perform from plank.attachments
  where id = found_id or id in (
    select plank.table_named(f #>> '{}') from unnest(p_filters) p cross join jsonb_path_query(p, '$.**."$from"') f)
  order by id for update;
  return found_id;
end $$;

-- Sets the policy of a role for an attached table, and replaces an earlier one.
--   select plank.allow('public.orders', 'authenticated',
--     read => '{"owner_id": {"$claim": "sub"}}', insert => '{}', presets => '{"owner_id": {"$claim": "sub"}}');
-- read, insert, update, delete: which rows; null: none, '{}': all. Without "check", an updated row
-- must meet "update" too. read_columns: what may be read, besides the key; null: every column that
-- is not excluded. write_columns: what REST may write; null: every writable column. presets:
-- columns that the server sets. Fails if a table, a column, an operator or a claim is wrong; the
-- error names its place. A notice names tables in which no index helps to find the rows.
--
-- A policy keeps its meaning: if a column or table that it names is dropped, renamed or excluded,
-- the policy allows nothing, also if another column or table gets that name. It can be used again
-- when the names mean the same again, or when it is set again.
create function plank.allow(
  relation regclass, role text,
  read jsonb default null, insert jsonb default null, update jsonb default null, "delete" jsonb default null,
  "check" jsonb default null, read_columns text[] default null, write_columns text[] default null,
  presets jsonb default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  own_id  integer := plank.lock_policies(allow.relation, allow.read, allow.insert, allow.update, allow."delete",
                                         allow."check");
  columns text[] := plank.policy_columns(own_id);
  filter  record;
  list    record;
  wrong   text;
  preset  jsonb;
  changed plank.policy;
begin
  if coalesce(allow.role, '') = '' or length(allow.role) > 1000 then
    perform plank.reject('role', 'must be the name of a role, of at most 1,000 characters');
  end if;
  for filter in select * from (values ('read', allow.read), ('insert', allow.insert), ('update', allow.update),
                                      ('delete', allow."delete"), ('check', allow."check")) f(name, value)
                where f.value is not null loop
    perform plank.check_filter(own_id, filter.value, filter.name);
  end loop;
  if allow."check" is not null and allow.update is null then
    perform plank.reject('check', 'needs update, as it says what an update may lead to');
  end if;
  for list in select l.name, c from (values ('read_columns', allow.read_columns),
                                            ('write_columns', allow.write_columns)) l(name, names)
              cross join unnest(l.names) c where c is null or c <> all (columns) loop
    perform plank.reject(list.name,
      format('names %s, which is no column that clients may see', coalesce(list.c, 'null')));
  end loop;
  select c into wrong from unnest(allow.write_columns) c join pg_attribute t
    on t.attrelid = allow.relation and t.attname = c and (t.attgenerated <> '' or t.attidentity = 'a');
  if found then
    perform plank.reject('write_columns', format('names %s, whose values Postgres generates', wrong));
  end if;
  if jsonb_typeof(allow.presets) <> 'object' then
    perform plank.reject('presets', 'must be an object, like {"owner_id": {"$claim": "sub"}}');
  end if;
  for wrong, preset in select * from jsonb_each(coalesce(allow.presets, '{}')) loop
    if wrong <> all (columns) then
      perform plank.reject('presets.' || left(wrong, 100), 'is no column that clients may see');
    elsif exists (select from pg_attribute t where t.attrelid = allow.relation and t.attname = wrong
                    and (t.attgenerated <> '' or t.attidentity = 'a')) then
      perform plank.reject('presets.' || left(wrong, 100), 'is a column whose values Postgres generates');
    elsif jsonb_typeof(preset) = 'object' and preset ? '$claim' then
      perform plank.check_claim(preset, 'presets.' || left(wrong, 100));
    end if;
  end loop;
  insert into plank.policy as p values (own_id, allow.role, allow.read, allow.insert, allow.update, allow."delete",
                                        allow."check", allow.read_columns, allow.write_columns, allow.presets)
  on conflict on constraint policy_pkey do update set
    read = excluded.read, insert = excluded.insert, update = excluded.update, delete = excluded.delete,
    "check" = excluded."check", read_columns = excluded.read_columns, write_columns = excluded.write_columns,
    presets = excluded.presets, problem = null
  returning * into changed;
  perform plank.record_policy(changed);
  perform plank.notice_unindexed(changed);
  perform plank.announce_policies(own_id);
end $$;

-- Removes the policy of a role. Fails if there is none.
create function plank.forbid(relation regclass, role text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  own_id integer := plank.lock_policies(forbid.relation);
begin
  delete from plank.policy p where p.attachment = own_id and p.role = forbid.role;
  if not found then
    raise exception 'plank: there is no policy of the role % for %', forbid.role, forbid.relation
      using errcode = 'undefined_object', hint = 'See select * from plank.policies.';
  end if;
  perform plank.announce_policies(own_id);
end $$;

-- All policies, by the names that clients use for the tables. problem: why a policy allows nothing;
-- null: it can be used.
create view plank.policies as
select a.name as "table", p.role, p.read, p.insert, p.update, p.delete, p."check",
       p.read_columns, p.write_columns, p.presets, plank.policy_problem(p) as problem
from plank.policy p join plank.attached a on a.id = p.attachment;
