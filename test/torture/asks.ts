// Owns the requests of a torture run's clients: each filter as the protocol writes it, and as SQL that must give the same rows.

import type { Ask } from './picture.ts';
import type { Random } from './random.ts';
import { owners, regions } from './schema.ts';

/** The rows of `table` for which `condition` holds, as key and version. */
function ask(table: string, condition: string, where?: object, columns?: string[]): Ask {
  const key = table === 'orders' ? `region || '/' || id` : table === 'totals' ? 'owner' : 'id::text';
  return {
    table,
    ...(where ? { where } : {}),
    ...(columns ? { columns } : {}),
    sql: `select ${key} as key, ver from ${table} where ${condition}`,
  };
}

export function someAsk(random: Random): Ask {
  const owner = `u${random.between(1, owners)}`;
  const other = `u${random.between(1, owners)}`;
  const amount = random.between(100, 900);
  switch (random.between(0, 8)) {
    case 0:
      return ask('accounts', 'true');
    case 1:
      return ask('accounts', `owner = '${owner}'`, { owner });
    case 2:
      return ask('accounts', `amount > ${amount}`, { amount: { gt: amount } }, ['id', 'ver']);
    case 3:
      return ask('accounts', `owner in ('${owner}', '${other}') and not amount <= ${amount}`, {
        owner: { in: [owner, other] },
        not: { amount: { lte: amount } },
      });
    case 4:
      return ask('accounts', `owner = '${owner}' or note = ''`, { or: [{ owner }, { note: '' }] });
    case 5:
      return ask('orders', 'true');
    case 6: {
      const region = random.pick(regions);
      return ask('orders', `region = ${region} and amount >= ${amount}`, { region, amount: { gte: amount } });
    }
    case 7:
      return ask('things', 'true');
    default:
      return ask('totals', 'true');
  }
}

/** Several different requests: a connection may make each once. */
export function someAsks(random: Random, count: number): Ask[] {
  const bySql = new Map<string, Ask>();
  while (bySql.size < count) {
    const one = someAsk(random);
    bySql.set(one.sql, one);
  }
  return [...bySql.values()];
}
