// A load generator for where there is no pgbench: runs one of its scripts (a `\set … random`, then one statement) on some
// connections, and prints how many transactions it has done in all, and how many a second after a first one.
//
//   node writer.ts <url> <script> <clients> <seconds>

import { readFile } from 'node:fs/promises';
import { Client } from 'pg';

const [url = '', script = '', clients = '', seconds = ''] = process.argv.slice(2);
const match = /^\\set (\w+) random\((\d+), (\d+)\)\n(.*);\n$/s.exec(await readFile(script, 'utf8'));
if (!match) throw new Error(`${script} is not of the form that this knows`);
const [, name = '', low = '', high = '', sql = ''] = match;
const text = sql.replace(`:${name}`, '$1');

const connections = await Promise.all(
  Array.from({ length: Number(clients) }, async () => {
    const client = new Client({ connectionString: url });
    await client.connect();
    return client;
  }),
);
const started = performance.now();
const counted = started + 1_000;
const end = counted + Number(seconds) * 1_000;
let transactions = 0;
let before = 0;
await Promise.all(
  connections.map(async (client) => {
    while (performance.now() < end) {
      const value = Number(low) + Math.floor(Math.random() * (Number(high) - Number(low) + 1));
      await client.query({ name: 'write', text, values: [value] });
      transactions++;
      if (performance.now() < counted) before++;
    }
  }),
);
const perSecond = ((transactions - before) * 1_000) / (performance.now() - counted);
await Promise.all(connections.map((client) => client.end()));
process.stdout.write(JSON.stringify({ transactions, perSecond }));
