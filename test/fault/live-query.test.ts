// A live query of the SDK under load, while the parts that it depends on fail. Each of its pictures is a state that the table
// had, no picture is older than the one before, and the last one equals SELECT.

import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { createPlank, type LiveQuery, type Plank } from '#client/plank-client.ts';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase } from '../support/servers/servers.ts';
import { startEmbedded } from '../support/stage/embedded.ts';
import { tellOnFailure } from '../support/stage/nodes.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { session } from '../support/truth/capture.ts';
import { until } from '../support/wait.ts';

interface Task {
  id: number;
  status: string;
  ver: number;
}

const deadlineMs = 20_000;
/** after each transaction, one of the rows 2n-1 and 2n is open and the other is done */
const pairs = 10;
const crowd = 2_000;
const cutMs = 20_000;
/** the SDK's longest pause before it tries again, and the work after it on a busy machine */
const comeBackMs = 50_000;

const tasks = `create table task (id integer primary key, status text not null, ver integer not null default 0);
  create sequence task_id start 10001;
  select plank.attach('task');
  insert into task select n, case when n % 2 = 0 then 'open' else 'done' end from generate_series(1, ${2 * pairs}) n;
  insert into task select n, 'open' from generate_series(101, ${100 + crowd}) n`;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
let redis: Redis;
let proxy: TcpProxy;
let plank: Plank;
let open: LiveQuery<Task>;
let all: LiveQuery<Task>;
let writers: Writers;
/** the replica that serves the client, or null */
let node: string | null = null;
let witness: Witness;
/** another client, whose network is cut while everything else is tried */
let far: { proxy: TcpProxy; plank: Plank; open: LiveQuery<Task>; cutAt: number; resyncs: string[] };

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  await admin(databaseUrl, tasks);
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
  const table = plank.table<Task>('task');
  all = table.live();
  open = table.live({ status: 'open' });
  const farProxy = await TcpProxy.start(cluster.url);
  stack.defer(() => farProxy.stop());
  const farPlank = createPlank({ url: `${farProxy.through(cluster.url)}ws` });
  stack.defer(() => farPlank.close());
  const farOpen = farPlank.table<Task>('task').live({ status: 'open' });
  const resyncs: string[] = [];
  farPlank
    .table('task')
    .subscribe({ where: { status: 'open' }, snapshot: true }, { onResync: (reason) => resyncs.push(reason) });
  await Promise.all([all.ready, open.ready, farOpen.ready]);
  farProxy.blackhole();
  far = { proxy: farProxy, plank: farPlank, open: farOpen, cutAt: performance.now(), resyncs };
});

beforeEach(() => {
  tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]);
  witness = new Witness(open);
  writers = new Writers(databaseUrl);
  return () => witness.end();
});

afterEach(() => writers.stop());
afterAll(() => stack.disposeAsync());

/** Records what is wrong with a query's pictures: each must lie between two transactions, and none may be older than the last. */
class Witness {
  pictures = 0;
  readonly wrong: string[] = [];
  readonly end: () => void;
  readonly #versions = new Map<number, number>();

  constructor(query: LiveQuery<Task>) {
    this.end = query.subscribe(() => this.#look(query.rows));
  }

  #look(rows: LiveQuery<Task>['rows']): void {
    const { wrong } = this;
    if (wrong.length > 10) return;
    this.pictures++;
    for (let n = 1; n <= pairs; n++) {
      const [one, other] = [rows.get(2 * n - 1), rows.get(2 * n)];
      if ((one === undefined) === (other === undefined)) wrong.push(`pair ${n}: ${JSON.stringify([one, other])}`);
    }
    for (const { id, status, ver } of rows.values()) {
      if (status !== 'open') wrong.push(`row ${id} is ${status}`);
      const before = this.#versions.get(id) ?? 0;
      if (ver < before) wrong.push(`row ${id} went back from ${before} to ${ver}`);
      this.#versions.set(id, ver);
    }
  }
}

/** Transactions that swap the states of pairs, move rows in and out of filters, and change keys. */
class Writers {
  transactions = 0;
  readonly #end = new AbortController();
  readonly #done: Promise<unknown>;

  constructor(url: string) {
    this.#done = Promise.all([this.#loop(url), this.#loop(url)]);
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

  async #loop(url: string): Promise<void> {
    const client = await session(url);
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
    // one row leaves and the other enters in two statements
    `begin; ${lock};
     ${turn} where id = ${2 * n - 1}; ${turn} where id = ${2 * n}; commit`,
    `${turn} where id = ${id}`,
    // the row leaves and returns within one transaction
    `begin; ${turn} where id = ${id}; ${turn} where id = ${id}; commit`,
    `update task set id = nextval('task_id'), ver = 0 where id = (select max(id) from task where id <> ${id})`,
    `insert into task values (nextval('task_id'), 'open')`,
    `delete from task where id = (select max(id) from task where id > 10000)`,
  ];
  return choices[below(choices.length)]!;
}

/** Stops the writers. Then the queries must become equal to the table. */
async function expectRight(): Promise<void> {
  await writers.more(50);
  await writers.stop();
  const rows = await selected(databaseUrl);
  await becomes('the query has all rows', all, rows, deadlineMs);
  await becomes('the query has the open rows', open, rows.filter(isOpen), deadlineMs);
  expect(witness.wrong).toEqual([]);
  expect(witness.pictures).toBeGreaterThan(20);
}

const selected = async (url: string) =>
  (await admin(url, 'select id, status, ver from task order by id')) as unknown as Task[];
const isOpen = ({ status }: Task) => status === 'open';
const becomes = (what: string, query: LiveQuery<Task>, wanted: Task[], ms: number) =>
  until(what, () => text(query.rows.values()) === text(wanted), ms);

const text = (rows: Iterable<Task>) =>
  Array.from(rows, ({ id, status, ver }) => [id, status, ver] as const)
    .sort(([a], [b]) => a - b)
    .join(';');

function serving(): ClusterNode {
  const found = cluster.gateways.find(({ name }) => name === node);
  if (!found) throw new Error(`no gateway of ours serves the client: ${node}`);
  return found;
}

test('a live query follows filters, keys and TRUNCATE while nothing fails', async () => {
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

test('a live query stays right when its gateway is killed', async () => {
  await writers.more(100);
  const victim = serving();
  await victim.kill();
  await until('the client is at another gateway', () => node !== null && node !== victim.name, deadlineMs);
  await expectRight();
  await victim.start();
});

test('a live query stays right when all gateways are restarted in turn', async () => {
  for (const gateway of cluster.gateways) {
    await gateway.stop();
    await gateway.start();
    await writers.more(20);
  }
  await until('the client is connected', () => node !== null, deadlineMs);
  await expectRight();
});

test('a live query stays right when Redis loses everything', async () => {
  await writers.more(100);
  await redis.flushall();
  await writers.more(100);
  await redis.flushall();
  await expectRight();
});

const touchAll = (url: string) => admin(url, `update task set ver = ver + 1 where id between 101 and ${100 + crowd}`);

test('a live query begins again when its network was cut for longer than the log is kept', async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  await admin(database.url, tasks);
  const env = { RETENTION_MS: '1000', RING_BYTES: '65536', PING_INTERVAL_MS: '500' };
  let brief = await startEmbedded(database.url, env);
  stack.defer(() => brief.stop());
  const cut = await TcpProxy.start(brief.url);
  stack.defer(() => cut.stop());
  const client = createPlank({ url: `${cut.through(brief.url)}ws` });
  stack.defer(() => client.close());
  const table = client.table<Task>('task');
  const query = table.live({ status: 'open' });
  const resyncs: string[] = [];
  table.subscribe({ where: { status: 'open' }, snapshot: true }, { onResync: (reason) => resyncs.push(reason) });
  await query.ready;
  const pictures = new Witness(query);
  const writing = new Writers(database.url);
  await writing.more(50);
  await writing.stop();
  cut.blackhole();
  for (let i = 0; i < 5; i++) await touchAll(database.url);
  const [extent] = await admin(database.url, 'select newest from plank.extent()');
  const oldest = async () => Number((await admin(database.url, 'select oldest from plank.extent()'))[0]!['oldest']);
  await until(
    'the missed changes are no longer kept',
    async () => (await oldest()) > Number(extent!['newest']),
    deadlineMs,
  );
  await until('the client notices', () => client.state !== 'open', deadlineMs);
  // the gateway's memory of them is lost as well
  await brief.stop();
  brief = await startEmbedded(database.url, { ...env, PORT: new URL(brief.url).port });
  cut.pass();
  await until('the client gets a resync', () => resyncs.length > 0, deadlineMs);
  await becomes('the query has the open rows', query, (await selected(database.url)).filter(isOpen), deadlineMs);
  expect(resyncs).toEqual(['retention']);
  expect(pictures.wrong).toEqual([]);
});

test('a live query resumes after 20 s without a network and thousands of changes', async () => {
  const pictures = new Witness(far.open);
  for (let i = 0; i < 5; i++) await touchAll(databaseUrl);
  await writers.more(1_000);
  await writers.stop();
  await until('20 s have gone by', () => performance.now() - far.cutAt > cutMs, cutMs);
  expect(far.plank.state).not.toBe('open');
  expect(pictures.pictures).toBe(0);
  far.proxy.pass();
  // ends attempts that began during the silence
  far.proxy.cut();
  await until('the query is live again', () => far.open.state === 'live', comeBackMs);
  writers = new Writers(databaseUrl);
  await expectRight();
  await becomes('the query has the open rows', far.open, (await selected(databaseUrl)).filter(isOpen), deadlineMs);
  expect(far.resyncs).toEqual([]);
  expect(pictures.wrong).toEqual([]);
  expect(pictures.pictures).toBeGreaterThan(20);
});
