// Owns the DDL of a torture run. What must stay true: each deed leaves the tables as the writers know them, and a removal of rows without
// changes is in the ledger if plain-mode clients get it.

import { setTimeout as delay } from 'node:timers/promises';
import { insist } from './insist.ts';
import type { Observed } from './observed.ts';
import type { Random } from './random.ts';
import { regions } from './schema.ts';

export interface Deed {
  name: string;
  run: (context: { databaseUrl: string; random: Random; observed: Observed }) => Promise<unknown>;
}

/** Within this time every gateway has read a change of the catalog, unless a fault prevents it. */
const heardMs = 6_000;

/** Limits the wait for a lock, because writers queue behind it. */
const patient = (sql: string) => `set lock_timeout = '2s'; ${sql}`;

const doIt = (databaseUrl: string, sql: string) => insist(databaseUrl, patient(sql));

let columns = 0;

export const deeds: Deed[] = [
  {
    name: 'add, rename, retype and drop a column',
    async run({ databaseUrl, random }) {
      const column = `extra_${++columns}`;
      const table = random.pick(['accounts', 'orders', 'things']);
      await doIt(databaseUrl, `alter table ${table} add column ${column} integer default ${random.between(1, 9)}`);
      await delay(random.between(0, 800));
      await doIt(databaseUrl, `alter table ${table} rename column ${column} to ${column}_too`);
      await doIt(databaseUrl, `alter table ${table} alter column ${column}_too type text using 'n' || ${column}_too`);
      await delay(random.between(0, 800));
      await doIt(databaseUrl, `alter table ${table} drop column ${column}_too`);
    },
  },
  {
    name: 'TRUNCATE things',
    run: ({ databaseUrl }) =>
      doIt(
        databaseUrl,
        `begin; truncate things; insert into ledger (id, tbl, action) values (nextval('ledger_id'), 'things', 'TRUNCATE'); commit`,
      ),
  },
  {
    name: 'TRUNCATE a partition',
    run: ({ databaseUrl, random }) => doIt(databaseUrl, `truncate orders_${random.pick(regions)}`),
  },
  {
    name: 'detach a partition, and attach it again',
    async run({ databaseUrl, random }) {
      const region = random.pick(regions);
      await doIt(databaseUrl, `alter table orders detach partition orders_${region}`);
      await delay(random.between(0, 1_000));
      await doIt(databaseUrl, `delete from orders_${region} where id % 2 = 0`);
      await doIt(databaseUrl, `alter table orders attach partition orders_${region} for values in (${region})`);
    },
  },
  {
    name: 'rename the value of an enum, and back',
    async run({ databaseUrl, random }) {
      await doIt(databaseUrl, `alter type mood rename value 'calm' to 'still'`);
      await delay(random.between(0, 1_000));
      await doIt(databaseUrl, `alter type mood rename value 'still' to 'calm'`);
    },
  },
  {
    name: 'exclude a column, and serve it again',
    async run({ databaseUrl, random, observed }) {
      await doIt(databaseUrl, `select plank.attach('accounts', exclude => '{secret}')`);
      await delay(heardMs);
      observed.isSecret = true;
      await delay(random.between(500, 2_000));
      observed.isSecret = false;
      await doIt(databaseUrl, `select plank.attach('accounts', exclude => '{}')`);
    },
  },
];
