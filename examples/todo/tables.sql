-- The lists, their members and their tasks, and who may see and change them. `owner_id` and `user_id` are the `sub` of a
-- token. May be run again.
create table if not exists lists (
  id uuid primary key,
  name text not null,
  owner_id text not null
);
create table if not exists memberships (
  list_id uuid references lists on delete cascade,
  user_id text,
  primary key (list_id, user_id)
);
-- The page chooses the id. So if an answer is lost and the page repeats the POST, the task is added only once.
create table if not exists todos (
  id uuid primary key,
  list_id uuid not null references lists on delete cascade,
  text text not null check (length(text) between 1 and 200),
  done boolean not null default false,
  created_at timestamptz not null default now()
);
create index if not exists todos_list on todos (list_id);
create index if not exists memberships_user on memberships (user_id);

select plank.attach('lists'), plank.attach('memberships'), plank.attach('todos');

-- A user sees the lists that the user owns, and those whose member the user is. Nobody changes a list over REST.
select plank.allow('lists', 'authenticated', read => '{"or": [
  {"owner_id": {"$claim": "sub"}},
  {"id": {"in": {"$from": "memberships", "select": "list_id", "where": {"user_id": {"$claim": "sub"}}}}}]}');

-- An owner adds and removes the members of a list. A member may leave the list.
select plank.allow('memberships', 'authenticated', read => mine, insert => owned, "delete" => mine)
from (values (
  '{"list_id": {"in": {"$from": "lists", "select": "id", "where": {"owner_id": {"$claim": "sub"}}}}}'::jsonb,
  '{"or": [{"user_id": {"$claim": "sub"}},
           {"list_id": {"in": {"$from": "lists", "select": "id", "where": {"owner_id": {"$claim": "sub"}}}}}]}'::jsonb
)) filters(owned, mine);

-- A user who sees a list may do everything with its tasks.
select plank.allow('todos', 'authenticated', read => seen, insert => seen, update => seen, "delete" => seen)
from (values ('{"or": [
  {"list_id": {"in": {"$from": "lists", "select": "id", "where": {"owner_id": {"$claim": "sub"}}}}},
  {"list_id": {"in": {"$from": "memberships", "select": "list_id", "where": {"user_id": {"$claim": "sub"}}}}}]}'::jsonb
)) filters(seen);

-- Each of the two users has a list of their own. They share the third one.
insert into lists values
  ('00000000-0000-4000-8000-000000000001', 'Garden', 'ada'),
  ('00000000-0000-4000-8000-000000000002', 'Music', 'bob'),
  ('00000000-0000-4000-8000-000000000003', 'Household', 'ada')
on conflict do nothing;
insert into memberships values ('00000000-0000-4000-8000-000000000003', 'bob') on conflict do nothing;
