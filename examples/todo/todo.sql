-- The page chooses the id, so that a task is added once where its POST is repeated after a lost answer.
create table if not exists todo (
  id uuid primary key,
  text text not null check (length(text) between 1 and 200),
  done boolean not null default false,
  created_at timestamptz not null default now()
);
select plank.attach('todo');
