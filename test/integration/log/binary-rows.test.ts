// Rows in Postgres' binary format, as the server sends them: whole, however large, in buffers that the caller owns.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Connection, connect, disconnect } from '#shared/postgres/postgres.ts';
import { createDatabase } from '../../support/servers/servers.ts';

const stack = new AsyncDisposableStack();
let connection: Connection;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  connection = await connect(database.url, { applicationName: 'tests', statementTimeoutMs: 0 });
  stack.defer(() => disconnect(connection.client));
});

afterAll(() => stack.disposeAsync());

const letter = 'a'.charCodeAt(0);

test('binary rows come whole, whatever their size, and stay unchanged', async () => {
  const sizes = [0, 1, 8_000, 70_000, 5_000_000, 3];
  const list = sizes.map((size, i) => `(${i}, ${size})`).join();
  const sql = `select i, null::text, repeat(chr($1 + i), size) from (values ${list}) v(i, size)`;
  const read = (shift: number) => connection.client.binaryRows('sizes', sql, [letter + shift]);
  const [first, second] = [await read(0), await read(10)];
  for (const [rows, shift] of [
    [first, 0],
    [second, 10],
  ] as const) {
    expect(rows.map(([i, none, text]) => [i!.readInt32BE(), none, text!.length])).toEqual(
      sizes.map((size, i) => [i, null, size]),
    );
    for (const [i, , text] of rows)
      expect(text!.equals(Buffer.alloc(text!.length, letter + shift + i!.readInt32BE()))).toBe(true);
  }
  expect(first[4]![2]!.buffer.byteLength).toBeLessThan(5_000_100);
});

test('any number of binary rows comes', async () => {
  const rows = await connection.client.binaryRows('many', 'select g from generate_series(1, 10000) g');
  expect(rows.map(([g]) => g!.readInt32BE())).toEqual(Array.from({ length: 10_000 }, (_, i) => i + 1));
  expect(await connection.client.binaryRows('none', 'select where false')).toEqual([]);
});

test('a query that fails in the middle leaves a usable connection', async () => {
  const { client } = connection;
  const fails = 'select 1 / (5000 - g) from generate_series(1, 10000) g';
  for (let i = 0; i < 2; i++) await expect(client.binaryRows('fails', fails)).rejects.toThrow(/zero/);
  expect((await client.query('select 7 as n')).rows).toEqual([{ n: 7 }]);
  expect((await client.binaryRows('seven', 'select 7'))[0]![0]!.readInt32BE()).toBe(7);
});

test('a connection reads binary rows for one query at a time', async () => {
  const { client } = connection;
  const first = client.binaryRows('slow', 'select 1 from pg_sleep(0.1)');
  await expect(client.binaryRows('second', 'select 2')).rejects.toThrow(/running/);
  expect((await first)[0]![0]!.readInt32BE()).toBe(1);
});
