-- Creates the table of the quick start. shared/postgres/sample.ts runs this file once, and only if nothing
-- else has the name "items".

create table if not exists public.items (
  id         bigint generated always as identity primary key,
  name       text not null check (length(name) between 1 and 255),
  value      double precision,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create or replace function plank.touch_updated_at() returns trigger language plpgsql as $$
begin
  new.updated_at := clock_timestamp();
  return new;
end $$;

create or replace trigger items_touch_updated_at before update on public.items
  for each row execute function plank.touch_updated_at();

select plank.attach('public.items', read_only => '{created_at,updated_at}');
