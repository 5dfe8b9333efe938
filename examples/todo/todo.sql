-- The id is the one who adds it to choose: adding it twice, as after an answer that was lost, adds it once.
create table if not exists todo (
  id uuid primary key,
  text text not null check (length(text) between 1 and 200),
  done boolean not null default false,
  created_at timestamptz not null default now()
);
select plank.attach('todo');
