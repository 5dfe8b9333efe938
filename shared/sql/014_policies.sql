-- Policies: which roles of clients may do what with the rows of an attached table, where gateways run with AUTH=jwt.
-- Each change of a policy is an event A in the log, which holds all policies of the table. So every gateway applies
-- the change at the same position. An event V revokes tokens in the same way.
--
-- These functions check what can be checked without the types of Plank's filters. Gateways check the rest. A policy
-- that a gateway cannot use allows nothing; the gateway logs why.

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

-- Checks what a column is compared with. p_path: its place, for errors. p_sets: in how many sets it is nested.
create function plank.check_comparison(p_op text, p_operand jsonb, p_path text, p_sets integer) returns void
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
    select a.id into source from plank.attached a
    where a.name = p_operand->>'$from' and a.excluded is not null order by a.id limit 1;
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
    perform plank.check_filter(source, coalesce(p_operand->'where', '{}'), p_path || '.where', p_sets + 1);
  end if;
end $$;

-- Checks a filter of a policy.
create function plank.check_filter(p_id integer, p_filter jsonb, p_path text, p_sets integer default 0) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  columns text[] := plank.policy_columns(p_id);
  name    text;
  value   jsonb;
  item    jsonb;
  at      text;
  op      text;
  operand jsonb;
begin
  if jsonb_typeof(p_filter) <> 'object' then
    perform plank.reject(p_path, 'must be an object, like {"owner_id": {"$claim": "sub"}}');
  end if;
  for name, value in select * from jsonb_each(p_filter) loop
    at := p_path || '.' || left(name, 100);
    if name = 'not' then
      perform plank.check_filter(p_id, value, at, p_sets);
    elsif name in ('and', 'or') then
      if jsonb_typeof(value) <> 'array' then
        perform plank.reject(at, 'must be an array of filters');
      end if;
      for item in select * from jsonb_array_elements(value) loop
        perform plank.check_filter(p_id, item, at, p_sets);
      end loop;
    elsif regexp_replace(name, '^column:', '') <> all (columns) then
      perform plank.reject(at, 'is no column that clients may see');
    elsif jsonb_typeof(value) = 'array' or value = '{}' then
      perform plank.reject(at, 'must be a value, null, or an object with an operator');
    elsif jsonb_typeof(value) = 'object' and value ? '$claim' then
      perform plank.check_claim(value, at);
    elsif jsonb_typeof(value) = 'object' then
      for op, operand in select * from jsonb_each(value) loop
        perform plank.check_comparison(op, operand, at || '.' || left(op, 100), p_sets);
      end loop;
    end if;
  end loop;
end $$;

-- Writes the event that tells gateways of changed policies. The caller has locked the table's row of
-- plank.attachments, so the last of these events in the log has the policies that are there.
create function plank.announce_policies(p_id integer) returns void language plpgsql as $$
begin
  update plank.attachments set policies_xid = pg_current_xact_id() where id = p_id;
  insert into plank.outbox (relation, action, new) values (p_id, 'A', plank.policies_of(p_id)::text);
  perform plank.ring();
end $$;

-- Where the policies of tables last changed in the log: no later than the seq. A table is left out if that is not in
-- the log: its last event A was purged, is not drained yet, or is of the database of which this one is a restored dump.
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

-- Finds an attached table and locks its policies.
create function plank.lock_policies(relation regclass) returns integer
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  found_id integer;
begin
  select a.id into found_id from plank.attached a where a.relation = lock_policies.relation;
  if found_id is null then
    raise exception 'plank: table % is not attached', relation
      using errcode = 'undefined_object', hint = format('Attach it first: select plank.attach(%L).', relation);
  end if;
  perform from plank.attachments where id = found_id for update;
  return found_id;
end $$;

-- Sets the policy of a role for an attached table, and replaces an earlier one.
--   select plank.allow('public.orders', 'authenticated',
--     read => '{"owner_id": {"$claim": "sub"}}', insert => '{}', presets => '{"owner_id": {"$claim": "sub"}}');
-- read, insert, update, delete: which rows; null: none, '{}': all. Without "check", an updated row must meet "update"
-- too. read_columns: what may be read, besides the key; null: every column that is not excluded. write_columns: what
-- REST may write; null: every writable column. presets: columns that the server sets. Fails if a table, a column, an
-- operator or a claim is wrong; the error names its place.
create function plank.allow(
  relation regclass, role text,
  read jsonb default null, insert jsonb default null, update jsonb default null, "delete" jsonb default null,
  "check" jsonb default null, read_columns text[] default null, write_columns text[] default null,
  presets jsonb default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
  own_id  integer := plank.lock_policies(allow.relation);
  columns text[] := plank.policy_columns(own_id);
  filter  record;
  list    record;
  wrong   text;
  preset  jsonb;
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
    perform plank.reject(list.name, format('names %s, which is no column that clients may see', list.c));
  end loop;
  if jsonb_typeof(allow.presets) <> 'object' then
    perform plank.reject('presets', 'must be an object, like {"owner_id": {"$claim": "sub"}}');
  end if;
  for wrong, preset in select * from jsonb_each(coalesce(allow.presets, '{}')) loop
    if wrong <> all (columns) then
      perform plank.reject('presets.' || left(wrong, 100), 'is no column that clients may see');
    elsif jsonb_typeof(preset) = 'object' and preset ? '$claim' then
      perform plank.check_claim(preset, 'presets.' || left(wrong, 100));
    end if;
  end loop;
  insert into plank.policy as p values (own_id, allow.role, allow.read, allow.insert, allow.update, allow."delete",
                                        allow."check", allow.read_columns, allow.write_columns, allow.presets)
  on conflict on constraint policy_pkey do update set
    read = excluded.read, insert = excluded.insert, update = excluded.update, delete = excluded.delete,
    "check" = excluded."check", read_columns = excluded.read_columns, write_columns = excluded.write_columns,
    presets = excluded.presets;
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

-- All policies, by the names that clients use for the tables.
create view plank.policies as
select a.name as "table", p.role, p.read, p.insert, p.update, p.delete, p."check",
       p.read_columns, p.write_columns, p.presets
from plank.policy p join plank.attached a on a.id = p.attachment;

-- Revokes all tokens of a user (claim sub) that were issued up to now. No event with a later position reaches a
-- connection with such a token, and gateways refuse the tokens from then on. Tokens are issued in whole seconds, so a
-- token of the same second is revoked too. A revocation is kept for longer than any token lives.
create function plank.revoke("user" text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  second timestamptz := date_trunc('second', clock_timestamp());
begin
  if coalesce("user", '') = '' then
    perform plank.reject('user', 'must be the sub of the tokens to revoke');
  end if;
  delete from plank.revocations where at < second - interval '366 days';
  insert into plank.revocations ("user", before) values (revoke."user", second);
  insert into plank.outbox (relation, action, new)
  values (0, 'V', json_build_object('user', revoke."user", 'before', extract(epoch from second)::bigint)::text);
  perform plank.ring();
end $$;

-- As plank.revoke, for one token, by its id (claim jti).
create function plank.revoke_token(token text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce(token, '') = '' then
    perform plank.reject('token', 'must be the jti of the token to revoke');
  end if;
  delete from plank.revocations where at < clock_timestamp() - interval '366 days';
  insert into plank.revocations (token) values (revoke_token.token);
  insert into plank.outbox (relation, action, new)
  values (0, 'V', json_build_object('token', revoke_token.token)::text);
  perform plank.ring();
end $$;
