-- Revocation of tokens. Each revocation is an event V in the log, so every gateway applies it at the
-- same position.

-- Writes an event that revokes tokens, after purging revocations of tokens that have expired since.
-- No token lives longer than 366 days (AUTH_MAX_LIFETIME_S is at most 365 days). Revocations are
-- committed one after the other, so that a gateway which applied one applied all with lower ids.
create function plank.add_revocation(p_user text, p_before timestamptz, p_token text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  revocation bigint;
begin
  lock table plank.revocations in share row exclusive mode;
  delete from plank.revocations where greatest(at, before) < clock_timestamp() - interval '366 days';
  insert into plank.revocations ("user", before, token) values (p_user, p_before, p_token) returning id into revocation;
  insert into plank.outbox (relation, action, new)
  values (0, 'V', json_strip_nulls(json_build_object(
    'user', p_user, 'before', extract(epoch from p_before)::bigint, 'token', p_token, 'id', revocation))::text);
  perform plank.ring();
end $$;

-- Revokes all tokens of a user (claim sub) that were issued up to a time. No event with a later
-- position reaches a connection with such a token, and gateways refuse the tokens from then on.
-- Tokens are issued in whole seconds, so a token of the same second is revoked too, and a token
-- without iat is always revoked. A revocation is kept for longer than any token lives.
--   select plank.revoke('ada');
create function plank.revoke("user" text, before timestamptz default clock_timestamp()) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce("user", '') = '' then
    perform plank.reject('user', 'must be the sub of the tokens to revoke');
  elsif before is null or not isfinite(before) then
    perform plank.reject('before', 'must be a time');
  end if;
  perform plank.add_revocation("user", date_trunc('second', before), null);
end $$;

-- As plank.revoke, for one token, by its id (claim jti).
create function plank.revoke_token(token text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce(token, '') = '' then
    perform plank.reject('token', 'must be the jti of the token to revoke');
  end if;
  perform plank.add_revocation(null, null, token);
end $$;
