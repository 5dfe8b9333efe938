// Capture runs code of the owner of an attached table: casts of the owner's types to json. No role may gain rights by that: the code
// runs as the owner, and code of another role is not run at all. Writes go on when the owner changes.

import { randomBytes } from 'node:crypto';
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examineCapture } from '#deploy/doctor/capture.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, postgresUrl, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture, session } from '../../support/truth/capture.ts';

const unique = randomBytes(6).toString('hex');
const [owner, heir, stranger] = ['owner', 'heir', 'stranger'].map((name) => `plank_${name}_${unique}`) as [
  string,
  string,
  string,
];
let database: TestDatabase;
let capture: Capture;

/** A function for a cast or a check that tries to write to the vault, and else records the role that it ran as. */
const spy = (name: string, argument: string, returns: string, value: string) => `
  create function ${name}(${argument}) returns ${returns} language plpgsql as $$
  begin
    begin
      insert into public.vault values (current_user);
    exception when insufficient_privilege then
      insert into public.ran values (current_user);
    end;
    return ${value};
  end $$;`;
const castSpy = (type: string) =>
  `${spy(`to_spy_${type}`, type, 'json', `'"spied"'::json`)} create cast (${type} as json) with function to_spy_${type}(${type});`;

beforeAll(async () => {
  database = await createDatabase();
  capture = await Capture.start(database.url);
  await capture.writer.query(`
    create table vault (who name); create table ran (who name); grant insert on ran to public;
    ${[owner, heir, stranger].map((role) => `create role ${role} login password 'app'; grant create, usage on schema public to ${role};`).join('')}`);
});

afterAll(async () => {
  const roles = `${owner}, ${heir}, ${stranger}`;
  await capture?.writer.query(`drop owned by ${roles} cascade; drop role ${roles}`);
  await capture?.stop();
  await database?.drop();
});

async function as(role: string, sql: string): Promise<Record<string, string>[]> {
  const client = await session(database.url, { user: role, password: 'app' });
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

/** The roles that wrote to the vault, and the other roles that ran a spy. Empties both. */
async function spies(): Promise<{ vault: string[]; ran: string[] }> {
  const names = async (table: string) => {
    const rows = await admin(
      database.url,
      `with gone as (delete from ${table} returning who) select distinct who from gone`,
    );
    return rows.map((row) => row['who']!);
  };
  return { vault: await names('vault'), ran: await names('ran') };
}

/** The roles that a table's capture runs as. */
async function capturedAs(table: string): Promise<string[]> {
  const rows = await admin(
    database.url,
    `select distinct p.proowner::regrole::text as who from plank.attached a cross join plank.generated_functions(a.id) f join pg_proc p on p.oid = f
     where a.relation = '${table}'::regclass`,
  );
  return rows.map((row) => row['who']!);
}

describe("code of a table's owner", () => {
  test("the owner's code runs in the capture with the owner's rights", async () => {
    await as(
      owner,
      `create type mood as enum ('low', 'high'); ${castSpy('mood')}
       create type pair as (a mood, b integer);
       ${spy('judge', 'text', 'boolean', 'true')}
       create domain judged as text check (judge(value));
       create table traps (id judged primary key, m mood, p pair, many pair[]);
       create function again() returns trigger language plpgsql as $$
         begin if new.m = 'low' then update public.traps set m = 'high' where id = new.id; end if; return null; end $$;
       create trigger again after insert or update on traps for each row execute function again()`,
    );
    await admin(database.url, "select plank.attach('traps')");
    expect(await capturedAs('traps')).toEqual([owner]);
    await as(
      owner,
      `insert into traps values ('1', 'low', row('low', 1), array[row('high', 2)]::pair[]), ('2', 'high', null, null);
       update traps set p = row('high', 3) where id = '1'; update traps set m = 'low'; update traps set id = id || '0';
       delete from traps where id = '10'; truncate traps`,
    );
    expect(await spies()).toEqual({ vault: [], ran: [owner] });
    const [captured] = await admin(
      database.url,
      'select new from plank.outbox where key = \'"1"\' order by id limit 1',
    );
    expect(captured!['new']).toBe('{"id":"1","m":"spied","p":{"a":"spied","b":1},"many":[{"a":"spied","b":2}]}');
    await capture.changes();
  });

  test("the code of a type's owner does not run for another owner, whose changes have its values as text", async () => {
    await as(
      stranger,
      `create type shade as enum ('dark', 'light'); create type shades as (one shade); ${castSpy('shade')}
       ${spy('judge_shade', 'text', 'boolean', 'true')}
       create domain known as text check (judge_shade(value))`,
    );
    await capture.writer.query(`
      create table mine (id shade, nr integer, k shades, s shade, many shade[], deep shades, note known, primary key (id, k));
      create function again_mine() returns trigger language plpgsql as $$
        begin if new.nr = 1 then update public.mine set nr = 2 where id = new.id; end if; return null; end $$;
      create trigger again after insert on mine for each row execute function again_mine();
      select plank.attach('mine'); grant insert, update, delete, select on mine to ${owner}`);
    await capture.changes();
    await spies();
    await as(
      owner,
      `insert into mine (id, nr, k, s, many, deep) values ('dark', 1, row('dark'), 'light', '{dark,light}', row('light'));
       update mine set s = 'dark'; update mine set s = null`,
    );
    // the writer checks the domains of its own values; no other role ran code
    expect(await spies()).toEqual({ vault: [], ran: [owner] });
    const changes = await capture.changes();
    expect(changes.map((change) => change.action).join('')).toBe('IUUU');
    expect(changes.at(-2)!.new).toBe(
      '{"id":"dark","nr":2,"k":"(dark)","s":"dark","many":"{dark,light}","deep":"(light)","note":null}',
    );
    expect(JSON.parse(changes.at(-1)!.new!).s).toBeNull();
    expect(await spies()).toEqual({ vault: [], ran: [] });
  });

  test("an owner can read nothing of other tables in Plank's schema", async () => {
    await as(owner, 'create table his (id integer primary key); create table other (id integer primary key)');
    await admin(
      database.url,
      "create table ours (id integer primary key); select plank.attach('his'), plank.attach('ours')",
    );
    const [ids] = (await admin(
      database.url,
      `select min(id) filter (where name = 'his') as his, min(id) filter (where name = 'ours') as ours from plank.attached`,
    )) as [{ his: string; ours: string }];
    await capture.run('insert into ours values (1); insert into his values (1)');
    for (const view of [`plank.outbox_${ids.ours}`, `plank.outbox_${ids.his}`])
      expect(await as(owner, `select * from ${view}`)).toEqual([]);
    for (const [sql, message] of [
      ['select * from plank.outbox', /permission denied for table outbox/],
      [`insert into plank.outbox_${ids.ours} (relation, action) values (${ids.ours}, 'T')`, /violates check option/],
      [`insert into plank.outbox_${ids.his} (relation, action) values (${ids.ours}, 'T')`, /violates check option/],
      // nor canaries, nor changes with a transaction or a time of the owner's choice
      [
        `insert into plank.outbox_${ids.his} (relation, action, new) values (${ids.his}, 'C', '')`,
        /violates check option/,
      ],
      [
        `insert into plank.outbox_${ids.his} (relation, action, xid) values (${ids.his}, 'T', '3')`,
        /permission denied for view/,
      ],
      [
        `insert into plank.outbox_${ids.his} (relation, action, at) values (${ids.his}, 'T', 'infinity')`,
        /permission denied for view/,
      ],
      [`select plank.current_${ids.ours}('1')`, /permission denied for function/],
      [`select plank.reorder_${ids.ours}(0, 0, null)`, /permission denied for function/],
      [
        `create trigger t after insert on other referencing new table as plank_new for each statement execute function plank.capture_${ids.ours}_insert()`,
        /permission denied for function/,
      ],
      ["select plank.attach('other')", /permission denied/],
    ] as const)
      await expect(as(owner, sql)).rejects.toThrow(message);
    expect(await capture.changes()).toEqual([]);
  });
});

describe('a table that is given away', () => {
  const nested = `create function touch_T() returns trigger language plpgsql as $$
      begin if new.v < 10 then update public.T set v = v + 10 where id = new.id; end if; return null; end $$;
    create trigger again after insert or update on T for each row execute function touch_T()`;
  const create = (name: string) =>
    as(owner, `create table ${name} (id integer primary key, v integer); ${nested.replaceAll('T', name)}`);
  const write = (name: string) =>
    capture
      .run(`insert into ${name} values (1, 1), (2, 20); update ${name} set v = 5 where id = 2; delete from ${name}`)
      .then((changes) => changes.map((change) => change.action).join(''));

  test('a table that is given away is captured as its new owner', async () => {
    await create('given');
    await capture.run("select plank.attach('given')");
    expect(await write('given')).toBe('IUIUUDD');
    await capture.run(`alter table given owner to ${heir}`);
    expect(await capturedAs('given')).toEqual([heir]);
    expect(await write('given')).toBe('IUIUUDD');
    await capture.run('alter table given owner to current_user');
    expect(await write('given')).toBe('IUIUUDD');
    await capture.run('drop table given');
    expect(
      await admin(
        database.url,
        "select relname from pg_class where relname ~ '^outbox_[0-9]+$' and ltrim(relname, 'outbox_')::integer not in (select id from plank.attached)",
      ),
    ).toEqual([]);
  });

  test('a table that "reassign owned" gives away is captured, though no event reports it', async () => {
    await create('passed');
    await capture.run("select plank.attach('passed')");
    await capture.writer.query(`reassign owned by ${owner} to ${heir}; drop owned by ${owner}`);
    await admin(database.url, `grant create, usage on schema public to ${owner}`);
    expect(await write('passed')).toBe('IUIUUDD');
    expect(await admin(database.url, 'select * from plank.check()')).toEqual([]);
    await admin(database.url, `alter role ${heir} rename to ${heir}_2`);
    expect(await write('passed')).toBe('IUIUUDD');
    await admin(database.url, `alter role ${heir}_2 rename to ${heir}`);
    // the view now checks whose functions these are, once a statement and not for each row
    await capture.run(
      `begin; set local track_functions = 'all'; insert into passed select n, 20 from generate_series(1, 100) n`,
    );
    const asked = await capture.writer.query(
      "select calls from pg_stat_xact_user_functions where funcname = 'is_capture_role'",
    );
    expect(asked.rows).toEqual([{ calls: '1' }]);
    await capture.writer.query('rollback');
    await capture.run("select plank.detach('passed'), plank.attach('passed')");
    expect(await write('passed')).toBe('IUIUUDD');
    await capture.run('drop table passed');
  });

  test('a table that is given away keeps no grant of its former owner on the capture', async () => {
    await create('lent');
    await capture.run("select plank.attach('lent')");
    const [row] = await admin(database.url, "select id from plank.attached where name = 'lent'");
    const capturing = `plank.capture_${row!['id']}_insert()`;
    await as(owner, `grant execute on function ${capturing} to ${stranger} with grant option`);
    await as(stranger, `grant execute on function ${capturing} to ${heir}`);
    await capture.run('alter table lent owner to current_user');
    const may = await admin(
      database.url,
      `select r from unnest(array['${owner}', '${stranger}', '${heir}']) r where has_function_privilege(r, '${capturing}', 'execute')`,
    );
    expect(may).toEqual([]);
    expect(await write('lent')).toBe('IUIUUDD');
    await capture.run('drop table lent');
  });

  test('writes go on under a policy that is forced on the owner and fails', async () => {
    await create('policed');
    await capture.run(`select plank.attach('policed'); alter table policed enable row level security, force row level security;
      create policy tenants on policed using (v = current_setting('app.tenant')::integer)`);
    await capture.writer.query('insert into policed values (1, 1), (2, 20); delete from policed');
    const captured = await admin(
      database.url,
      `select action from plank.outbox o join plank.attached a on a.id = o.relation where a.name = 'policed' and action <> 'S'`,
    );
    expect(captured).toHaveLength(6 - 1);
    await capture.writer.query('drop table policed');
  });

  test('a change of owner without event triggers stops no write, and plank.check() finds it', async () => {
    await as(owner, 'create table unseen (id integer primary key, v integer)');
    await capture.run("select plank.attach('unseen')");
    await admin(database.url, 'alter event trigger plank_ddl disable');
    await capture.run(`alter table unseen owner to ${stranger}`);
    await admin(database.url, 'alter event trigger plank_ddl enable');
    expect(await capturedAs('unseen')).toEqual([owner]);
    expect(await write('unseen')).toBe('IIUDD');
    await capture.writer.query(`reassign owned by ${owner} to ${heir}`);
    expect(await write('unseen')).toBe('IIUDD');
    const problem = `changes of public.unseen are captured as the role ${heir}, which lacks rights that capture needs; run: select plank.attach('public.unseen')`;
    expect(await admin(database.url, "select problem from plank.check() where name = 'unseen'")).toEqual([{ problem }]);
    await capture.run("select plank.attach('unseen')");
    expect(await capturedAs('unseen')).toEqual([stranger]);
    expect(await admin(database.url, 'select * from plank.check()')).toEqual([]);
    await capture.run('drop table unseen');
  });

  test("writes go on if the owner has no right to the table's schema", async () => {
    await capture.run(`create schema closed; create table closed.box (id integer primary key, v integer);
      create function closed.touch() returns trigger language plpgsql security definer as $$
        begin if new.v < 10 then update closed.box set v = v + 10 where id = new.id; end if; return null; end $$;
      create trigger again after insert or update on closed.box for each row execute function closed.touch();
      alter table closed.box owner to ${owner}; select plank.attach('closed.box')`);
    await capture.writer.query('insert into closed.box values (1, 1), (2, 20); delete from closed.box');
    const captured = await admin(
      database.url,
      `select action from plank.outbox o join plank.attached a on a.id = o.relation where a.name = 'closed.box' and action <> 'S'`,
    );
    expect(captured).toHaveLength(6 - 1);
    await capture.writer.query("select plank.detach('closed.box'); drop schema closed cascade");
  });

  test('plank.check() finds a table whose capturing role may no longer write', async () => {
    await create('barred');
    await capture.run("select plank.attach('barred')");
    const advice = `changes of public.barred are captured as the role ${owner}, which lacks rights that capture needs; run: select plank.attach('public.barred')`;
    for (const right of ['usage on schema plank', 'execute on function plank.mark(bigint)']) {
      await capture.run(`revoke ${right} from public`);
      expect(await admin(database.url, "select problem from plank.check() where name = 'barred'")).toEqual([
        { problem: advice },
      ]);
      await capture.run("select plank.attach('barred')");
      expect(await admin(database.url, 'select * from plank.check()')).toEqual([]);
      expect(await write('barred')).toBe('IUIUUDD');
    }
    await capture.run('drop table barred');
  });
});

test('a table attached by a role that is no superuser is captured as that role, which the doctor reports', async () => {
  const url = new URL(await postgresUrl());
  const name = `plank_plain_${unique}`;
  await admin(url.href, `create database ${name} owner ${heir}`);
  url.pathname = `/${name}`;
  const root = url.href;
  [url.username, url.password] = [heir, 'app'];
  let client: Client | undefined;
  try {
    await migrate(url.href);
    await admin(
      root,
      `create table foreigners (id integer primary key, v integer); alter table foreigners owner to ${stranger};
       grant trigger, select on foreigners to ${heir}`,
    );
    await admin(
      url.href,
      "create table own (id integer primary key); select plank.attach('foreigners'), plank.attach('own')",
    );
    await admin(
      root,
      `set role ${stranger}; insert into foreigners values (1, 1); update foreigners set v = 2; delete from foreigners`,
    );
    const captured = await admin(url.href, "select action from plank.outbox where action <> 'S' order by id");
    expect(captured.map((row) => row['action']).join('')).toBe('IUD');
    // what was captured before cannot be hidden while others may be writing
    await expect(admin(url.href, "select plank.attach('foreigners', exclude => '{v}')")).rejects.toMatchObject({
      code: '42501',
    });
    expect(await admin(root, "select excluded::text from plank.attached where name = 'foreigners'")).toEqual([
      { excluded: '{}' },
    ]);
    client = await session(root);
    const says: string[] = [];
    for await (const finding of examineCapture(client, { retentionMs: 3_600_000, retentionBytes: 1e9 }))
      says.push(finding.says);
    expect(says.filter((text) => text.includes('with the rights'))).toEqual([
      `casts to json that table owners wrote run in the capture with the rights of the role that attached the table: foreigners (${heir})`,
    ]);
  } finally {
    await client?.end();
    await admin(root.replace(`/${name}`, '/postgres'), `drop database ${name} with (force)`);
  }
});
