// An excluded column is hidden in changes that were captured before as well: for clients that resume from before, in each mode,
// from the gateway's memory and from the log, whatever names the column has had.

import { expect, test } from 'vitest';
import type { Gateway } from '#gateway/gateway.ts';
import { overWebSocket, type Transport } from '../../support/stage/frames.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of("create table todo (id integer primary key, status text); select plank.attach('todo')");
const { sql } = stage;
const transports: Transport[] = [overWebSocket, (url, ask) => stage.stream(ask, url)];

/** Of the table T, attached before it has rows. `readable`: the part of earlier images that is shown afterwards. */
const cases: [what: string, before: string, exclude: string, readable: object][] = [
  [
    'a column',
    "insert into T values (1, 'n', 'hush')",
    "select plank.attach('T', exclude => '{secret}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column besides another that was excluded before',
    "insert into T values (1, 'hush', 'hush')",
    "select plank.attach('T', exclude => '{note}'); select plank.attach('T', exclude => '{note,secret}')",
    { id: 1 },
  ],
  [
    'a column instead of another',
    "insert into T values (1, 'n', 'hush')",
    "select plank.attach('T', exclude => '{note}'); select plank.attach('T', exclude => '{secret}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column that was renamed',
    "insert into T values (1, 'n', 'hush'); alter table T rename column secret to hidden",
    "select plank.attach('T', exclude => '{hidden}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column whose former name another column has',
    "insert into T values (1, 'n', 'hush'); alter table T rename column secret to hidden; alter table T add column secret text",
    "select plank.attach('T', exclude => '{hidden}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column that exchanged names with another',
    "insert into T values (1, 'n', 'hush'); alter table T rename column secret to x; alter table T rename column note to secret; alter table T rename column x to note",
    "select plank.attach('T', exclude => '{note}')",
    { id: 1 },
  ],
  [
    'a column that got its former name back',
    "insert into T values (1, 'n', 'hush'); alter table T rename column secret to x; insert into T values (2, 'n', 'hush'); alter table T rename column x to secret",
    "select plank.attach('T', exclude => '{secret}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column that was dropped and came back',
    "insert into T values (1, 'n', 'hush'); alter table T drop column secret; alter table T add column secret text",
    "select plank.attach('T', exclude => '{secret}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column that was the key',
    'alter table T drop constraint "T_pkey", add primary key (secret); insert into T values (1, \'n\', \'hush\'); alter table T drop constraint "T_pkey", add primary key (id)',
    "select plank.attach('T', exclude => '{secret}')",
    { id: 1, note: 'n' },
  ],
  [
    'a column in a serializable transaction',
    "insert into T values (1, 'n', 'hush')",
    `begin isolation level serializable; select from T; select plank.attach('T', exclude => '{secret}'); commit;
     alter table T add column later integer default 7`,
    { id: 1, note: 'n' },
  ],
  [
    'a column that is shown again later',
    "insert into T values (1, 'n', 'hush'); delete from T; insert into T values (2, 'n', 'open')",
    "select plank.attach('T', exclude => '{secret}'); select plank.attach('T', exclude => '{}')",
    { id: 1, note: 'n' },
  ],
];

/** what was excluded → the position before it had rows */
const positions = new Map<string, string>();
const nameOf = (what: string) => `t${cases.findIndex((one) => one[0] === what)}`;
let later: Gateway | undefined;

test.each(cases)('a resume from memory hides %s', async (what, before, exclude) => {
  const name = nameOf(what);
  const named = (text: string) => text.replaceAll(/\bT(?=\b|_)/g, name);
  await sql(
    named(
      `create table T (id integer constraint "T_pkey" primary key, note text, secret text); select plank.attach('T')`,
    ),
  );
  await stage.arrived();
  const { position } = await stage.health();
  await sql(named(before));
  await stage.arrived();
  const early = await stage.plain({ since: position, tables: name });
  await until('the secret arrives', () => early.frames.some((text) => text.includes('hush')), 5_000);
  await sql(named(exclude));
  await sql(named(`update T set note = note; delete from T`));
  await stage.arrived();
  positions.set(what, position);
  await isHidden(what, stage.embedded.url);
});

test.each(cases)('a resume from the log hides %s', async (what) => {
  expect(positions.size).toBe(cases.length);
  later ??= await stage.embedded.startGateway({ NODE_NAME: 'later' });
  await isHidden(what, `http://127.0.0.1:${later.port}`);
});

/** Resumes there, in each mode, get what may be read and not the excluded column. */
async function isHidden(what: string, url: string): Promise<void> {
  const name = nameOf(what);
  const position = positions.get(what)!;
  const since = await stage.plain({ since: position, tables: name, url: `${url.replace('http', 'ws')}/ws` });
  await until('every change arrives', () => since.frames.some((text) => text.includes('DELETE')), 5_000);
  const [first] = since.frames.map((text) => JSON.parse(text));
  expect(first).toMatchObject({ table: name, action: 'INSERT' });
  expect(first.data).toEqual(cases.find((one) => one[0] === what)![3]);
  // later changes have all columns that are not excluded
  const last = JSON.parse(since.frames.at(-1)!);
  const [{ columns }] = (
    await sql(
      'select array(select c->>$1 from json_array_elements(columns) c) as columns from plank.catalog where name = $2',
      ['name', name],
    )
  ).rows;
  expect(Object.keys(last.data)).toEqual(columns);
  if (what.includes('the key')) expect(first.id).toBe(null);
  const asks = [{}, { columns: ['id'] }, { where: { id: { gt: 0 } } }, { snapshot: true }];
  const received = await Promise.all(
    transports.flatMap((open) =>
      asks.map(async (ask) => {
        const reader = await open(url, { table: name, from: position, ...ask });
        stage.afterwards(() => reader.close());
        await until('it is live', () => reader.all.some(({ type }) => type === 'live'), 10_000);
        return JSON.stringify(reader.all);
      }),
    ),
  );
  const [, epoch, seq] = /e(\d+)\.(\d+)/.exec(first.pos)!;
  const explained = await fetch(`${stage.embedded.opsUrl}/ops/explain?pos=e${epoch}.${seq}`);
  received.push(...since.frames, await explained.text());
  expect(received.filter((text) => text.includes('hush'))).toEqual([]);
}

test('connected clients do not get an excluded column, even in the drain with the exclusion', async () => {
  await sql("create table late (id integer primary key, secret text); select plank.attach('late')");
  await stage.arrived();
  const client = await stage.plain({ tables: 'late' });
  const peer = await stage.peer();
  await stage.subscribe(peer, { table: 'late' });
  await peer.reader.expect('live');
  await sql(
    "insert into late values (1, 'hush'); select plank.attach('late', exclude => '{secret}'); insert into late values (2, 'hush')",
  );
  await until('both changes arrive', () => client.frames.length === 2, 5_000);
  expect(client.frames.map((text) => JSON.parse(text).data)).toEqual([{ id: 1 }, { id: 2 }]);
  await until('both changes arrive', () => JSON.stringify(peer.reader.all).includes('"id":2'), 5_000);
  expect(JSON.stringify(peer.reader.all)).not.toContain('hush');
});

test('an excluded column is hidden within seconds, even while no listener leads', async () => {
  await sql("create table alone (id integer primary key, secret text); select plank.attach('alone')");
  await stage.arrived();
  const { position } = await stage.health();
  await sql("insert into alone values (1, 'hush')");
  await stage.arrived();
  const guesser = await stage.peer();
  const ch = await stage.subscribe(guesser, { table: 'alone', where: { secret: 'hush' } });
  const url = `${stage.embedded.url}/api/alone/1`;
  expect(await (await fetch(url)).text()).toContain('hush');
  await stage.undrained(async () => {
    await sql("select plank.attach('alone', exclude => '{secret}')");
    await until('REST shows it no more', async () => (await (await fetch(url)).text()) === '{"id":1}', 5_000);
    const client = await stage.plain({ since: position, tables: 'alone' });
    await until('the change arrives', () => client.frames.length === 1, 5_000);
    expect(JSON.parse(client.frames[0]!).data).toEqual({ id: 1 });
    // a filter by the column ends as well, or its answers would reveal the values
    await until(
      'the filtered subscription ends',
      () => guesser.reader.all.some((frame) => frame.type === 'error' && frame.ch === ch),
      5_000,
    );
  });
});

test('a filter by an excluded column is refused like one by an unknown column', async () => {
  await sql(
    "create table asked (id integer primary key, secret text); select plank.attach('asked', exclude => '{secret}')",
  );
  await stage.arrived();
  const answers = async (column: string) => {
    const where = { [column]: 'hush' };
    const rest = await fetch(`${stage.embedded.url}/api/asked?where=${encodeURIComponent(JSON.stringify(where))}`);
    const results = [`${rest.status} ${await rest.text()}`];
    for (const open of transports) {
      for (const ask of [{ where }, { columns: [column] }, { where: { not: { [column]: null } }, snapshot: true }])
        results.push(await open(stage.embedded.url, { table: 'asked', ...ask }).then(() => 'open', String));
    }
    return results.map((text) => text.replaceAll(column, 'it').replaceAll(/"(instance|requestId)":"[^"]*"/g, ''));
  };
  expect(await answers('secret')).toEqual(await answers('nothing'));
  expect((await answers('secret')).slice(1)).toEqual([
    ...Array(3).fill('Error: UNKNOWN_COLUMN'),
    ...Array(3).fill('Error: INVALID'),
  ]);
});
