// The rows that a policy shows without some columns: the columns that are left have the bytes that they have in the whole row, for every type
// and layout of a table, also where the row is too large to be shown whole.

import { expect, test } from 'vitest';
import { allow, callsOf } from '../../support/stage/policies.ts';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';

// a type of a role that does not own the table: its values are rendered as text
const foreign = 'plank_rest_images';
const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create extension hstore;
   create type mood as enum ('a''b', '"');
   create type point2 as (x int, y text);
   create domain name_text as varchar(50000);
   do $$ begin create role ${foreign}; exception when duplicate_object then null; end $$;
   create schema others; grant usage, create on schema others to ${foreign};
   set role ${foreign}; create type others.odd as (n int, t text); reset role;
   create table kinds (id int primary key, hidden text, m mood, p point2, ps point2[], h hstore, b bytea, c char(5),
     nm name, v varchar(10), d name_text, f real, ts timestamp, tz timestamptz, iv interval, mo money, r int4range,
     a text[], x xml, o others.odd, "a.""b' \\c" text, secret int);
   create table parted (id int, hidden text, k text, primary key (id)) partition by range (id);
   create table parted_1 (k text, id int not null, hidden text);
   alter table parted attach partition parted_1 for values from (0) to (10);
   create table parted_2 partition of parted for values from (10) to (20);
   create table large (id int primary key, hidden text, t text, d name_text, j jsonb, b bytea, n numeric, c char(20), small int);
   select plank.attach('todo'); select plank.attach('kinds', exclude => '{secret}'); select plank.attach('parted');
   select plank.attach('large');
   select plank.configure(row_bytes => 65536);
   ${allow('kinds', { read: {}, reads: ['m', 'p', 'ps', 'h', 'b', 'c', 'nm', 'v', 'd', 'f', 'ts', 'tz', 'iv', 'mo', 'r', 'a', 'x', 'o', `a."b'' \\c`] })}
   ${allow('parted', { read: {}, reads: ['k'] })}
   ${allow('large', { read: {}, reads: ['t', 'd', 'j', 'b', 'n', 'c', 'small'] })}
   ${['kinds', 'parted', 'large'].map((name) => allow(name, { read: {} }, 'auditor')).join('\n')}
   insert into kinds values (1, 'H', 'a''b', row(1, '"q"'), array[row(2, null)::point2, null], 'k=>"v \\"", n=>null',
     '\\x00ff', 'x', 'nm', 'v', 'd', 1.1, '2026-01-31 12:00:00.5', '2026-01-31T12:00:00.5+02', '1 day 02:03', 1234.5,
     '[1,5)', '{a,NULL,"b,\\"c"}', '<a/>', row(7, 'o'), E'\\n', 1);
   insert into kinds values (2, 'H');
   insert into parted values (1, 'H', 'one'), (11, 'H', 'two');
   insert into large values
     (1, 'H', repeat('t', 70000), 'd', '{"a": 1}', '\\x00', 1, 'c', 1),
     (2, 'H', repeat(E'\\n', 7000), repeat('d', 30000), to_jsonb(repeat('j', 30000)), repeat('b', 20000)::bytea, 2, 'c ', 2),
     (3, 'H', repeat(E'\\x01', 5000), 'd', to_jsonb(array_fill(1, array[20000])), '\\x00', 1e6000, 'c', 3),
     (4, 'H', null, repeat('d', 9000), to_jsonb(repeat('j', 9000)), repeat('b', 4000)::bytea, 1e9000, null, 4),
     (5, 'H', repeat('t', 8000), repeat('d', 8000), to_jsonb(repeat('j', 8000)), repeat('b', 4000)::bytea, 1e8000, 'c', 5),
     (6, 'H', repeat('t', 50000), null, null, null, 1e8000, 'c', 6)`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const call = callsOf(stage);
const auditor = tokenOf({ role: 'auditor' });

test.each(['kinds', 'parted', 'large'])('of %s', async (table) => {
  const whole = await call(auditor, 'GET', `/api/${table}`);
  const shown = await call('ada', 'GET', `/api/${table}`);
  expect(whole.text).toContain(',"hidden":"H"');
  expect(shown.text).toBe(whole.text.replaceAll(',"hidden":"H"', ''));
  const counts = [whole, shown].map(({ headers }) => headers.get('plank-truncated'));
  expect(counts).toEqual(table === 'large' ? ['3', '3'] : [null, null]);
});
