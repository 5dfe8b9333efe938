// A capture function fixes only the settings that the images of its table depend on. So each type is tested alone in a table: with any
// settings of the writer's session, its images must equal those that a gateway reads.

import { describe, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { captured } from '../../support/stage/captured.ts';

const moment = `'2024-02-29 23:59:59.123456+05:30'`;
const values: [type: string, value: string][] = [
  ['boolean', 'true'],
  ['"char"', `'x'`],
  ['smallint', '-32768'],
  ['integer', '2147483647'],
  ['bigint', '9007199254740993'],
  ['oid', '4294967295'],
  ['numeric(20,4)', '12345.67'],
  ['real', '0.1'],
  ['float8', '0.1::float8 + 0.2'],
  ['text', `'Ünï "q" \\ 👍'`],
  ['varchar(9)', `'x'`],
  ['char(9)', `'x'`],
  ['name', `'x'`],
  ['uuid', `'0b5c6a4e-6d5c-4f0c-8a3e-3c1f8f6a2b11'`],
  ['json', `'{"b": 1, "a": [1.0, null]}'`],
  ['jsonb', `'{"b" : 1e2}'`],
  ['date', `'0099-01-02 BC'`],
  ['time', `'23:59:59.5'`],
  ['timetz', `'23:59:59.5+05:30'`],
  ['timestamp', `'2024-06-01 12:00:00.5'`],
  ['timestamptz', moment],
  ['timestamptz', `'infinity'`],
  ['interval', `'1 year 2 mons -3 days 04:05:06.7'`],
  ['bytea', String.raw`'\xdeadbeef5c00'`],
  ['money', '12345.67'],
  ['bit(3)', `B'101'`],
  ['varbit', `B'101'`],
  ['inet', `'10.1.2.3/24'`],
  ['cidr', `'10.1.0.0/16'`],
  ['macaddr', `'08:00:2b:01:02:03'`],
  ['macaddr8', `'08:00:2b:01:02:03:04:05'`],
  ['point', `'(0.1,0.3)'`],
  ['xml', `'<a/>'`],
  ['tsvector', `'a:1 b:2'`],
  ['int4range', `'[1,5)'`],
  ['numrange', `'[1.0,5.50)'`],
  ['daterange', `'[2024-01-13,2024-02-01)'`],
  ['tsrange', `'[2024-01-13 01:00,2024-02-01)'`],
  ['tstzrange', `'[2024-01-13 01:00+00,2024-02-01 00:00+00)'`],
  ['tstzmultirange', `'{[2024-01-13 01:00+00,2024-02-01 00:00+00)}'`],
  ['timestamptz[]', `array[${moment}, null]::timestamptz[]`],
  ['float8[]', 'array[[0.1::float8 + 0.2], [1e300]]'],
  ['interval[]', `array['1 day 02:00'::interval]`],
  ['bytea[]', String.raw`array['\x005c'::bytea]`],
  ['integer[]', 'array[1, null]'],
  ['daterange[]', `array['[2024-01-13,2024-02-01)'::daterange]`],
  ['mood', `'so so'`],
  ['mood[]', `array['so so'::mood]`],
  ['moments', moment],
  ['moments[]', `array[${moment}]::moments[]`],
  ['many_moments', `array[${moment}]::timestamptz[]`],
  ['mixed', `row(${moment}, '1 day 02:00', 0.1::float8 + 0.2, '\\x00')::mixed`],
  ['mixed[]', `array[row(${moment}, '1 day 02:00', 0.1::float8 + 0.2, '\\x00')::mixed]`],
];
const odd = `set timezone = 'America/St_Johns'; set datestyle = 'German, DMY'; set intervalstyle = postgres_verbose; set extra_float_digits = -15;
  set bytea_output = escape; set xmlbinary = hex`;

const capture = captured(`
    create type mood as enum ('so so', 'well');
    create domain moments as timestamptz;
    create domain many_moments as timestamptz[];
    create type mixed as (at timestamptz, span interval, f float8, raw bytea)`);

/** The settings that a table's capture fixes, besides search_path. */
async function fixed(table: string): Promise<string[]> {
  const rows = await admin(
    capture.url,
    `select split_part(unnest(proconfig), '=', 1) as name from pg_proc
     where oid in (select tgfoid from pg_trigger where tgrelid = '${table}'::regclass and tgname = 'plank_update')`,
  );
  return rows.map((row) => row['name']!.toLowerCase()).filter((name) => name !== 'search_path');
}

describe('images under odd session settings', () => {
  test.each(values)('an image of %s %s is the same under odd session settings', async (type, value) => {
    await capture.run(
      `drop table if exists typed; create table typed (id integer primary key, v ${type}); select plank.attach('typed')`,
    );
    // as a gateway's session renders it
    await capture.run(`insert into typed values (1, ${value})`);
    const expected = (await capture.content('typed')).get('1')!;
    await capture.writer.query(odd);
    const [updated, deleted] = await capture.run('update typed set id = id; delete from typed');
    expect(updated).toMatchObject({ old: expected, new: expected });
    expect(deleted).toMatchObject({ old: expected });
    await capture.writer.query('reset all');
    const [inserted] = await capture.run(`set timezone = 'Asia/Tokyo'; insert into typed values (1, ${value})`);
    expect(inserted!.new).toBe(expected);
    await capture.writer.query('reset all');
  });

  test('a key is the same under odd session settings', async () => {
    await capture.run(
      `create table keyed (at timestamptz, f float8, primary key (at, f)); select plank.attach('keyed'); insert into keyed values (${moment}, 0.1)`,
    );
    await capture.writer.query(odd);
    const [deleted] = await capture.run('delete from keyed');
    expect(deleted!.key).toBe('{"at":"2024-02-29T18:29:59.123456+00:00","f":0.1}');
    await capture.writer.query('reset all');
  });
});

describe('the settings that a capture fixes', () => {
  const all = ['bytea_output', 'datestyle', 'extra_float_digits', 'intervalstyle', 'lc_monetary', 'timezone'];

  test('the settings that a capture fixes follow the types of the columns that are sent', async () => {
    await capture.run(`create table kinds (id integer primary key, v text); select plank.attach('kinds')`);
    expect(await fixed('kinds')).toEqual([]);
    await capture.run('alter table kinds alter column v type moments using now()');
    expect(await fixed('kinds')).toEqual(['timezone']);
    await capture.run('alter table kinds add column f float8[]');
    expect(await fixed('kinds')).toEqual(['extra_float_digits', 'timezone']);
    await capture.run('alter table kinds add column b mixed');
    expect((await fixed('kinds')).sort()).toEqual(all);
    await capture.run(`select plank.attach('kinds', exclude => '{b,v}')`);
    expect(await fixed('kinds')).toEqual(['extra_float_digits']);
  });

  test('the capture fixes all settings if no event trigger reports changed types', async () => {
    await admin(capture.url, 'alter event trigger plank_ddl disable');
    await capture.run(`create table untold (id integer primary key, v text); select plank.attach('untold')`);
    expect((await fixed('untold')).sort()).toEqual(all);
    await capture.run(`alter table untold alter column v type timestamptz using ${moment}`);
    await capture.writer.query(odd);
    const [inserted] = await capture.run(`insert into untold values (1, ${moment})`);
    expect(inserted!.new).toBe('{"id":1,"v":"2024-02-29T18:29:59.123456+00:00"}');
    await capture.writer.query('reset all');
    await admin(capture.url, 'alter event trigger plank_ddl enable');
  });
});
