// A live query of the SDK under load, while what it hangs on fails: it is at every moment a moment of the table, never goes
// back, and in the end is what SELECT says.

import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { createPlank, type LiveQuery, type Plank } from '../../client/plank-client.ts';
import { Cluster, type ClusterNode } from '../../deploy/local/cluster.ts';
import { startRedis } from '../../deploy/local/redis.ts';
import { admin } from '../support/admin.ts';
import { session } from '../support/capture.ts';
import { tellOnFailure } from '../support/nodes.ts';
import { createDatabase } from '../support/servers.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { until } from '../support/wait.ts';

interface Task {
  id: number;
  status: string;
  ver: number;
}

const deadlineMs = 20_000;
/** of the rows 2n-1 and 2n, one is open and one is done, after each transaction */
const pairs = 10;
const crowd = 2_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
let redis: Redis;
let proxy: TcpProxy;
let plank: Plank;
let open: LiveQuery<Task>;
let all: LiveQuery<Task>;
let writers: Writers;
/** the replica that serves the client; null: none */
let node: string | null = null;
let seen: { pictures: number; wrong: string[]; versions: Map<number, number> };

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  await admin(
    databaseUrl,
    `create table task (id integer primary key, status text not null, ver integer not null default 0);
     create sequence task_id start 10001;
     select plank.attach('task');
     insert into task select n, case when n % 2 = 0 then 'open' else 'done' end from generate_series(1, ${2 * pairs}) n;
     insert into task select n, 'open' from generate_series(101, ${100 + crowd}) n`,
  );
  const server = await startRedis();
  stack.defer(() => server.stop());
  redis = new Redis(server.url);
  stack.defer(() => redis.disconnect());
  const gatewayEnv = { PING_INTERVAL_MS: '1000' };
  cluster = await Cluster.start({ gateways: 2, databaseUrl, redisUrl: server.url, gatewayEnv });
  stack.defer(() => cluster.stop());
  proxy = await TcpProxy.start(cluster.url);
  stack.defer(() => proxy.stop());

  plank = createPlank({ url: `${proxy.through(cluster.url)}ws` });
  stack.defer(() => plank.close());
  plank.onState((link) => (node = link.status === 'open' ? link.node : null));
  const tasks = plank.table<Task>('task');
  all = tasks.live();
  open = tasks.live({ status: 'open' });
  await Promise.all([all.ready, open.ready]);
});

beforeEach(() => {
  tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]);
  seen = { pictures: 0, wrong: [], versions: new Map() };
  writers = new Writers();
  return open.subscribe(look);
});

afterEach(() => writers.stop());
afterAll(() => stack.disposeAsync());

/** Keeps what is wrong with a picture: each must be one between two transactions, and none older than the one before. */
function look(): void {
  if (seen.wrong.length > 10) return;
  seen.pictures++;
  for (let n = 1; n <= pairs; n++) {
    const [one, other] = [open.rows.get(2 * n - 1), open.rows.get(2 * n)];
    if ((one === undefined) === (other === undefined)) seen.wrong.push(`pair ${n}: ${JSON.stringify([one, other])}`);
  }
  for (const { id, status, ver } of open.rows.values()) {
    if (status !== 'open') seen.wrong.push(`row ${id} is ${status}`);
    const before = seen.versions.get(id) ?? 0;
    if (ver < before) seen.wrong.push(`row ${id} went back from ${before} to ${ver}`);
    seen.versions.set(id, ver);
  }
}

/** Transactions that turn pairs over, change filters' minds and keys, or empty the table and fill it again. */
class Writers {
  transactions = 0;
  readonly #end = new AbortController();
  readonly #done = Promise.all([this.#loop(), this.#loop()]);

  constructor() {
    this.#done.catch(() => {});
  }

  async more(count: number): Promise<void> {
    const goal = this.transactions + count;
    await until('transactions go on', () => this.transactions >= goal, deadlineMs);
  }

  async stop(): Promise<void> {
    this.#end.abort();
    await this.#done;
  }

  async #loop(): Promise<void> {
    const client = await session(databaseUrl);
    try {
      for (; !this.#end.signal.aborted; this.transactions++) await client.query(transaction());
    } finally {
      await client.end();
    }
  }
}

const below = (n: number) => Math.floor(Math.random() * n);

function transaction(): string {
  const n = 1 + below(pairs);
  const id = 101 + below(crowd);
  const turn = `update task set status = case status when 'open' then 'done' else 'open' end, ver = ver + 1`;
  // in this order, so that writers wait for each other and never deadlock
  const lock = `select from task where id in (${2 * n - 1}, ${2 * n}) order by id for update`;
  const choices = [
    `begin; ${lock}; ${turn} where id in (${2 * n - 1}, ${2 * n}); commit`,
    // one leaves, in another statement than the one that enters
    `begin; ${lock};
     ${turn} where id = ${2 * n - 1}; ${turn} where id = ${2 * n}; commit`,
    `${turn} where id = ${id}`,
    // it leaves and is back before anybody could look
    `begin; ${turn} where id = ${id}; ${turn} where id = ${id}; commit`,
    `update task set id = nextval('task_id'), ver = 0 where id = (select max(id) from task where id <> ${id})`,
    `insert into task values (nextval('task_id'), 'open')`,
    `delete from task where id = (select max(id) from task where id > 10000)`,
  ];
  return choices[below(choices.length)]!;
}

/** Quiet; then the queries must become what the table is. */
async function expectRight(): Promise<void> {
  await writers.more(50);
  await writers.stop();
  const rows = (await admin(databaseUrl, 'select id, status, ver from task order by id')) as unknown as Task[];
  const isRight = (query: LiveQuery<Task>, wanted: Task[]) => () => text(query.rows.values()) === text(wanted);
  await until('it has all rows', isRight(all, rows), deadlineMs);
  const wanted = rows.filter(({ status }) => status === 'open');
  await until('it has the open ones', isRight(open, wanted), deadlineMs);
  expect(seen.wrong).toEqual([]);
  expect(seen.pictures).toBeGreaterThan(20);
}

const text = (rows: Iterable<Task>) =>
  Array.from(rows, ({ id, status, ver }) => [id, status, ver] as const)
    .sort(([a], [b]) => a - b)
    .join(';');

function serving(): ClusterNode {
  const found = cluster.gateways.find(({ name }) => name === node);
  if (!found) throw new Error(`no gateway of ours serves the client: ${node}`);
  return found;
}

it('while nothing fails: filters, keys and TRUNCATE', async () => {
  await writers.more(200);
  for (let i = 0; i < 3; i++) {
    await admin(
      databaseUrl,
      `begin; lock table task; create temp table kept on commit drop as select id, status, ver + 1 from task;
       truncate task; insert into task select * from kept; commit`,
    );
    await writers.more(20);
  }
  await expectRight();
  await admin(databaseUrl, `delete from task where id > 10000`);
});

it('its gateway is killed', async () => {
  await writers.more(100);
  const victim = serving();
  await victim.kill();
  await until('it is elsewhere', () => node !== null && node !== victim.name, deadlineMs);
  await expectRight();
  await victim.start();
});

it('all gateways are restarted in turn', async () => {
  for (const gateway of cluster.gateways) {
    await gateway.stop();
    await gateway.start();
    await writers.more(20);
  }
  await until('it is somewhere', () => node !== null, deadlineMs);
  await expectRight();
});

it('Redis loses everything', async () => {
  await writers.more(100);
  await redis.flushall();
  await writers.more(100);
  await redis.flushall();
  await expectRight();
});

it('its network says nothing while thousands of changes go by', async () => {
  await writers.more(50);
  proxy.blackhole();
  for (let i = 0; i < 5; i++)
    await admin(databaseUrl, `update task set ver = ver + 1 where id between 101 and ${100 + crowd}`);
  await until('it notices', () => node === null, deadlineMs);
  proxy.pass();
  await until('it is back', () => node !== null, deadlineMs);
  await expectRight();
});
