// Owns the tables of a torture run. Every change of an attached row writes one row to `ledger` in the same transaction: the ledger is the
// truth. `ver` comes from the ledger's sequence while the row's lock is held, so it names one change and rises for each row.

export const accounts = 500;
/** of the accounts, those that most transactions write to */
export const hot = 20;
export const owners = 12;
export const regions = [1, 2, 3, 4] as const;
export const ordersPerRegion = 60;
export const things = 80;
/** the beginning of every secret; no client may get one while the column is excluded */
export const secretMark = 'hush-';

export const schema = `
  create sequence ledger_id;
  create table ledger (
    id bigint primary key, tx bigint not null default pg_current_xact_id()::text::bigint,
    tbl text not null, action text not null, key text, was bigint);
  create table accounts (
    id integer primary key, owner text not null, amount numeric(12,2) not null, ver bigint not null, note text,
    secret text not null default '${secretMark}' || gen_random_uuid());
  create table orders (
    region integer, id integer, ver bigint not null, state text not null, amount integer, revision integer not null default 0,
    primary key (region, id)) partition by list (region);
  ${regions.map((region) => `create table orders_${region} partition of orders for values in (${region});`).join('\n')}
  create type mood as enum ('calm', 'wild');
  create table things (id integer primary key, ver bigint not null, size integer not null, mood mood not null default 'calm');
  -- a user's own trigger that writes to another attached table
  create table totals (owner text primary key, ver bigint not null, n bigint not null);
  create function count_owner() returns trigger language plpgsql as $$
  begin
    with t as (
      insert into totals values (new.owner, nextval('ledger_id'), 1)
      on conflict (owner) do update set n = totals.n + 1, ver = nextval('ledger_id') returning owner, ver, n
    )
    insert into ledger (id, tbl, action, key) select ver, 'totals', case when n = 1 then 'INSERT' else 'UPDATE' end, owner from t;
    return null;
  end $$;
  create trigger count_owner after insert on accounts for each row execute function count_owner();
  select plank.attach('accounts'), plank.attach('orders'), plank.attach('things'), plank.attach('totals');
`;

export const watched = ['accounts', 'orders', 'things', 'totals'] as const;
