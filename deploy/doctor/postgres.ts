/**
 * Examines the database server: its version, its settings, and whether a pooler stands between the server and this
 * connection.
 */
import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { compareClock } from './clock.ts';
import { type Finding, fault, note, ok, reason, span, warning } from './finding.ts';

const oldestVersion = 140_000;
const testedVersion = 190_000;
const notifyWithinMs = 3_000;
const longMs = 300_000;

/**
 * Opens a connection without the settings that Plank's connections have. A pooler may refuse these settings, and
 * `examineSession` reports that.
 */
export async function connectPlainly(url: string): Promise<Client> {
  const client = new Client({
    connectionString: url,
    application_name: 'plank doctor',
    connectionTimeoutMillis: 5_000,
    query_timeout: 15_000,
  });
  client.on('error', () => {});
  await client.connect();
  return client;
}

export async function* examinePostgres(client: Client, url: string, wake: 'auto' | 'poll'): AsyncGenerator<Finding> {
  const { rows } = await client.query<Record<string, string>>(`select current_setting('server_version_num') as version,
    current_setting('server_version') as version_text, pg_is_in_recovery()::text as standby, pg_backend_pid() as pid`);
  const { version, version_text, standby, pid } = rows[0]!;
  if (Number(version) < oldestVersion) {
    yield fault(`PostgreSQL ${version_text} is too old`, 'Plank needs PostgreSQL 14 or newer');
    return;
  }
  if (Number(version) >= testedVersion)
    yield note(
      `PostgreSQL ${version_text} is newer than the versions that Plank is tested with`,
      'tested are 14 to 18',
    );
  else yield ok(`PostgreSQL ${version_text} answers`);
  if (standby === 'true') {
    yield fault('this server is a standby: it takes no writes', 'set DATABASE_URL to the primary');
    return;
  }
  yield* examineSession(client, url, Number(pid), wake);
  yield* examineSettings(client, wake);
  yield await compareClock('Postgres', async () => {
    const answer = await client.query<{ at: string }>('select extract(epoch from clock_timestamp()) * 1000 as at');
    return Number(answer.rows[0]!.at);
  });
}

/** Examines whether a session stays on one server connection, and whether NOTIFY arrives. */
async function* examineSession(
  client: Client,
  url: string,
  pid: number,
  wake: 'auto' | 'poll',
): AsyncGenerator<Finding> {
  // At the beginning of a session, a server sends its process id, but a pooler sends a number of its own.
  const pooled = (client as unknown as { processID: number }).processID !== pid;
  const arrives = await notifyArrives(client, url);
  const advice =
    'let the listener and the gateways connect to Postgres itself, or to a pooler in session mode; the application may keep its pooler';
  if (arrives) {
    if (pooled) yield ok('a pooler in session mode stands before Postgres: NOTIFY arrives');
    else yield ok('connections reach Postgres itself, and NOTIFY arrives');
  } else if (pooled)
    yield fault('a pooler stands before Postgres that is not in session mode: NOTIFY does not arrive', advice);
  else if (wake === 'auto') yield fault('NOTIFY does not arrive within 3 s', advice);
  try {
    const session = new Client({ connectionString: url, options: '-c timezone=UTC', connectionTimeoutMillis: 5_000 });
    session.on('error', () => {});
    await session.connect();
    await session.end();
  } catch (error) {
    yield fault(`a session cannot be started with settings of its own: ${reason(error)}`, advice);
  }
}

async function notifyArrives(client: Client, url: string): Promise<boolean> {
  const channel = `plank_doctor_${randomBytes(6).toString('hex')}`;
  const writer = await connectPlainly(url);
  const arrival = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => arrival.resolve(false), notifyWithinMs);
  const listener = (message: { channel: string }) => {
    if (message.channel === channel) arrival.resolve(true);
  };
  client.on('notification', listener);
  try {
    await client.query(`listen ${channel}`);
    // At this point, a pooler in transaction mode passes the server connection that listens on to the other client.
    await writer.query('select pg_sleep(0.05)');
    await writer.query(`notify ${channel}`);
    return await arrival.promise;
  } finally {
    clearTimeout(timer);
    client.off('notification', listener);
    await client.query(`unlisten ${channel}`).catch(() => {});
    await writer.end();
  }
}

async function* examineSettings(client: Client, wake: 'auto' | 'poll'): AsyncGenerator<Finding> {
  const { rows } = await client.query<Record<string, string>>(`
    select current_setting('server_encoding') as encoding, current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
      current_setting('synchronous_commit') as synchronous_commit, current_setting('autovacuum') as autovacuum,
      current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer as connections,
      (select count(*) from pg_stat_activity where backend_type = 'client backend') as used,
      current_setting('max_prepared_transactions') as prepared_limit,
      (select count(*) from pg_prepared_xacts where prepared < now() - interval '1 minute') as prepared,
      (select extract(epoch from max(now() - xact_start)) * 1000 from pg_stat_activity
       where backend_type = 'client backend' and (backend_xid is not null or backend_xmin is not null)) as longest_ms,
      (select coalesce(usename, 'somebody') || ' (' || application_name || ', process ' || pid || ')' from pg_stat_activity
       where backend_type = 'client backend' and (backend_xid is not null or backend_xmin is not null) and xact_start is not null order by xact_start limit 1) as whose,
      pg_notification_queue_usage() as queue,
      (select string_agg(coalesce(r.rolname, 'every role'), ', ') from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole,
       unnest(s.setconfig) c where c = 'session_replication_role=replica') as silenced`);
  const row = rows[0]!;
  const risk = 'after a crash, the database may lack changes that clients have received';
  if (row.fsync === 'off') yield fault(`fsync is off: ${risk}`, 'set fsync = on');
  if (row.full_page_writes === 'off') yield fault(`full_page_writes is off: ${risk}`, 'set full_page_writes = on');
  if (row.synchronous_commit === 'off')
    yield note(
      'synchronous_commit is off: a crash may take back recent commits that no client has received',
      'set synchronous_commit = on if that is not intended; Plank flushes changes before clients receive them in any case',
    );
  if (row.fsync !== 'off' && row.full_page_writes !== 'off')
    yield ok('commits are flushed before clients receive them');
  if (row.encoding === 'SQL_ASCII')
    yield warning(
      'the database has no encoding (SQL_ASCII)',
      'move to UTF8, or make sure that all writers write valid UTF-8: a change with other bytes cannot be sent, and blocks all later changes',
    );
  if (row.autovacuum === 'off') yield warning('autovacuum is off: the outbox grows without end', 'set autovacuum = on');
  const [used, connections] = [Number(row.used), Number(row.connections)];
  if (used > connections * 0.8)
    yield warning(
      `${used} of ${connections} connections are taken`,
      'raise max_connections: a gateway takes up to POOL_SIZE + 23, a listener up to 9',
    );
  else yield ok(`${used} of ${connections} connections are taken`);
  if (Number(row.prepared_limit) > 0 && wake === 'auto')
    yield note(
      `two-phase commit is enabled (max_prepared_transactions is ${row.prepared_limit})`,
      'if it is used for attached tables, set WAKE=poll: PREPARE TRANSACTION fails after a NOTIFY',
    );
  if (Number(row.prepared) > 0)
    yield warning(
      `${row.prepared} prepared transactions have waited for more than a minute to be committed or rolled back`,
      'see pg_prepared_xacts: clients receive their changes when they commit, and vacuum cannot clean up until then',
    );
  if (Number(row.longest_ms) > longMs)
    yield warning(
      `a transaction of ${row.whose} has been open for ${span(Number(row.longest_ms))}`,
      'clients receive its changes when it commits, and vacuum cannot clean up until then; see idle_in_transaction_session_timeout',
    );
  if (Number(row.queue) > 0.1)
    yield fault(
      `the NOTIFY queue is ${Math.round(Number(row.queue) * 100)} % full: when it is full, commits fail`,
      'end the session that listens and has the oldest transaction: see pg_stat_activity, state "idle in transaction"',
    );
  if (row.silenced !== null)
    yield fault(
      `triggers are off (session_replication_role = replica) for ${row.silenced}`,
      'remove the setting: changes of these sessions are not captured',
    );
}
