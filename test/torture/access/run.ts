// One run: users with roles read `docs` over every transport while writers change rows, memberships and policies, clients are dropped, and
// gateways come and go. At the end every client has exactly the rows of SELECT under its policy, and nothing that it was sent broke one.

import { isDeepStrictEqual } from 'node:util';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';
import { secret } from '../../support/stage/tokens.ts';
import { until } from '../../support/wait.ts';
import { Random } from '../random.ts';
import { check, policyOf } from './check.ts';
import { type AccessClient, type Account, EventsClient, PlainClient, type Seen, SessionClient } from './clients.ts';
import { type Claims, policies, type Row, schema } from './policies.ts';
import { replay } from './replay.ts';
import { changePolicies, users, write } from './writers.ts';

export interface Outcome {
  problems: string[];
  /** how many frames of each kind came, and how many rows and keys were judged */
  counts: Record<string, number>;
}

export async function accessRun(options: {
  seed: number;
  seconds: number;
  say: (line: string) => void;
}): Promise<Outcome> {
  const { seed, seconds, say } = options;
  const random = new Random(seed);
  await using stack = new AsyncDisposableStack();
  const database = await createDatabase();
  stack.defer(() => database.drop());
  const pool = testPool(database.url, 6);
  stack.defer(() => pool.end());
  await pool.query(schema);
  const embedded = await startEmbedded(database.url, {
    AUTH: 'jwt',
    AUTH_JWT_SECRET: secret,
    RING_BYTES: `${256 * 1024}`,
    // small: catching up and holding back happen all the time
    MAX_QUEUE_BYTES: `${64 * 1024}`,
  });
  stack.defer(() => embedded.stop());
  let second = await embedded.startGateway();
  const other = () => `http://127.0.0.1:${second.port}`;
  /** the gateways that run */
  let all = [embedded.url, other()];
  const urls = () => all;

  const seen: Seen[] = [];
  const problems: string[] = [];
  const counts: Record<string, number> = {};
  const clients: AccessClient[] = accounts().flatMap((account) => {
    const deps = { urls, random: random.of(account.who), seen, problems, counts };
    const sessions = [new SessionClient(account, deps), new EventsClient(account, deps)];
    return account.next ? [sessions[0]!] : [...sessions, new PlainClient(account, deps)];
  });
  stack.defer(() => {
    for (const client of clients) client.stop();
  });

  const ends = performance.now() + seconds * 1_000;
  const isOver = () => performance.now() > ends;
  const drops = random.of('drops');
  const dropping = (async () => {
    while (!isOver()) {
      await new Promise((resolve) => setTimeout(resolve, drops.between(20, 150)));
      drops.pick(clients).drop();
    }
  })();
  const killing = (async () => {
    while (!isOver()) {
      await new Promise((resolve) => setTimeout(resolve, drops.between(1_500, 3_000)));
      all = [embedded.url];
      await second.stop();
      second = await embedded.startGateway();
      all = [embedded.url, other()];
      counts.restarts = (counts.restarts ?? 0) + 1;
    }
  })();
  const writers = [1, 2, 3].map((n) => write(pool, random.of(`writer ${n}`), isOver));
  const editor = await changePolicies(pool, random.of('policies'), isOver);
  counts.transactions = (await Promise.all(writers)).reduce((sum, n) => sum + n, 0);
  await Promise.all([dropping, killing]);
  say(`wrote ${counts.transactions} transactions, comparing`);

  for (const client of clients) {
    if (!client.rows) continue;
    const { role, sub, projects } = client.claims;
    const wanted = await selected(pool, policyOf(role, editor), { ...(sub ? { sub } : {}), projects: projects ?? [] });
    await until(
      'the rows of a client are those of SELECT',
      () => isDeepStrictEqual(sorted(client.rows!), wanted),
      15_000,
    ).catch(() =>
      problems.push(
        `${client.who} (${JSON.stringify(client.claims)}) has ${JSON.stringify(sorted(client.rows!))}\n   SELECT has ${JSON.stringify(wanted)}`,
      ),
    );
  }
  for (const client of clients) client.stop();
  problems.push(...check(await replay(pool), seen));
  counts.judged = seen.length;
  say(JSON.stringify(counts));
  return { problems, counts };
}

function accounts(): Account[] {
  const roles = [...Object.keys(policies).filter((role) => role !== 'anonymous' && role !== 'tenant'), 'editor'];
  const named = roles.flatMap((role, i) =>
    [users[i % users.length]!, users[(i + 1) % users.length]!].map((sub) => ({
      who: `${sub} as ${role}`,
      claims: { sub, role },
    })),
  );
  const someProjects = (random: Random): Claims => ({
    sub: 'ten',
    role: 'tenant',
    projects: [1, 2, 3, 4, 5].filter(() => random.chance(0.5)),
  });
  return [
    ...named,
    { who: 'a stranger', claims: { sub: 'eve', role: 'unheard-of' } },
    { who: 'nobody', claims: {} },
    { who: 'a tenant', claims: { sub: 'ten', role: 'tenant', projects: [1, 2] } },
    { who: 'a tenant who moves', claims: { sub: 'ten', role: 'tenant', projects: [1] }, next: someProjects },
  ];
}

async function selected(
  pool: ReturnType<typeof testPool>,
  { sql, columns }: { sql: string; columns: readonly string[] },
  { sub, projects }: Claims,
): Promise<Row[]> {
  const { rows } = await pool.query<{ row: string }>(
    `select (select to_json(x) from (select ${columns.map((name) => `d.${name}`).join(', ')}) x)::text as row
     from docs d where ($1::text is null or true) and ($2::int[] is null or true) and (${sql}) order by d.id`,
    [sub ?? null, projects],
  );
  return rows.map(({ row }) => JSON.parse(row) as Row);
}

const sorted = (rows: ReadonlyMap<string, Row>): Row[] =>
  [...rows.values()].sort((a, b) => Number(a.id) - Number(b.id));
