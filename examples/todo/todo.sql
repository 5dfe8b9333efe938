-- The page chooses the id. So if an answer is lost and the page repeats the POST, the task is added
-- only once.
create table if not exists todo (
  id uuid primary key,
  text text not null check (length(text) between 1 and 200),
  done boolean not null default false,
  created_at timestamptz not null default now()
);
select plank.attach('todo');
