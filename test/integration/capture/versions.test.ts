// Every PostgreSQL from 14 on: the migrations apply, and changes are captured, ordered, read again and purged.

import { afterAll, describe, expect, test } from 'vitest';
import { migrate, requireMigrated } from '#shared/postgres/migrate.ts';
import { makeSample } from '#shared/postgres/sample.ts';
import { admin } from '../../support/servers/admin.ts';
import { otherVersions, startVersion } from '../../support/servers/postgres-versions.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { Capture } from '../../support/truth/capture.ts';

interface Server {
  url: string;
  stop(): Promise<void>;
}

const servers: [name: string, start: () => Promise<Server>][] = [
  ['that Plank brings along', () => createDatabase().then((own) => ({ url: own.url, stop: () => own.drop() }))],
  ...otherVersions.map((version): [string, () => Promise<Server>] => [String(version), () => startVersion(version)]),
];

describe.each(servers)('PostgreSQL %s', (_, start) => {
  let server: Server | undefined;
  let capture: Capture | undefined;

  afterAll(async () => {
    await capture?.stop();
    await server?.stop();
  });

  test('changes are captured, ordered, read again and purged', async () => {
    server = await start();
    await migrate(server.url);
    await migrate(server.url);
    await makeSample(server.url);
    await requireMigrated(server.url);
    capture = await Capture.start(server.url);
    const run = capture.run.bind(capture);
    await run(`
      create table people (id integer primary key, name text, secret text default 'hush');
      create table notes (id integer primary key, author integer references people on delete set null on update cascade,
        editor integer references people on delete set null on update cascade, at timestamptz default '2024-05-06 07:08:09+02', span interval default '1 day 2 hours');
      create table parts (id integer, at integer, v float8, primary key (id, at)) partition by range (at);
      create table part_1 partition of parts for values from (0) to (10);
      create table part_2 partition of parts for values from (10) to (20);
      create function again() returns trigger language plpgsql as $$
        begin if length(new.name) < 6 then update people set name = new.name || '!' where id = new.id; end if; return null; end $$;
      create trigger again after insert or update on people for each row execute function again();
      select plank.attach('people', exclude => '{secret}'), plank.attach('notes'), plank.attach('parts')`);
    expect(await capture.brief("insert into people values (1, 'Alice'), (2, 'Robert')")).toEqual([
      'I 1 {"id":1,"name":"Alice"}',
      'U 1 {"id":1,"name":"Alice"} {"id":1,"name":"Alice!"}',
      'I 2 {"id":2,"name":"Robert"}',
    ]);
    await run('insert into notes values (1, 1, 1), (2, 1, 2)');
    expect(await run('update people set id = id + 10')).not.toHaveLength(0);
    await run(
      "insert into people values (12, 'Bobby'), (13, 'Carol') on conflict (id) do update set name = excluded.name",
    );
    await run('delete from people where id in (11, 12)');
    await run(
      'insert into parts values (1, 1, 0.1), (2, 12, 1e300); update parts set at = 15 where id = 1; update part_2 set v = v / 3; delete from parts where id = 2',
    );
    await run('begin; savepoint a; delete from notes; rollback to a; update notes set id = id + 1; commit');
    const [version] = await admin(server.url, 'show server_version_num');
    if (Number(version!.server_version_num) >= 150_000) {
      await run(`merge into people using (values (13, null), (14, 'Dora')) n(id, name) on n.id = people.id
        when matched and n.name is null then delete when not matched then insert values (n.id, n.name)`);
    }
    await run(
      'drop trigger again on people; alter table people add column age integer; alter table people rename column name to called; alter table people rename to persons',
    );
    expect(await capture.brief("insert into persons (id, called) values (20, 'Zacharias')")).toEqual([
      'I 20 {"id":20,"called":"Zacharias","age":null}',
    ]);
    await run('truncate parts; drop table part_1; drop table notes');
    expect(await admin(server.url, 'select * from plank.check()')).toEqual([]);
    expect(
      await admin(
        server.url,
        'select name, (columns)::jsonb @> \'[{"name": "id"}]\' as has_id from plank.catalog order by name',
      ),
    ).toEqual([
      { name: 'items', has_id: true },
      { name: 'parts', has_id: true },
      { name: 'persons', has_id: true },
    ]);
    const purge = "select plank.purge(term, interval '0', 1000000, 1000) as gone from plank.leader";
    while (Number((await admin(server.url, purge))[0]!.gone) > 0);
    expect(
      await admin(server.url, 'select (select count(*) from plank.outbox) as o, log_bytes as b from plank.leader'),
    ).toEqual([{ o: '0', b: '0' }]);
  });
});
