/**
 * Answers "Why did I not get this change?". It follows one change, or the latest changes of a row, through
 * all processes: captured, sequenced, published, received by each replica, matched by a client's
 * subscriptions, written to the client. Each step is a sentence, with the facts behind it as fields.
 */
import { z } from 'zod';
import type { Answer, NodeStatus, Roster } from '#shared/bus/roster.ts';
import { keepDigits } from '#shared/exact-json.ts';
import { actions, isBreak } from '#shared/log/batch.ts';
import type { Tail } from '#shared/log/fanout.ts';
import { isUnavailable, type Pool } from '#shared/postgres/postgres.ts';
import { formatPosition, type Position, parsePosition } from '#shared/wire.ts';
import type { Catalog, Table } from '../catalog/catalog.ts';
import { fromZod, invalidFields, PlankError } from '../http/errors.ts';
import { parseKey } from '../http/row-key.ts';
import { type ReplicaAnswer, replicaAnswer } from './explain-gateway.ts';
import { clientSteps, endOf, type Step } from './explain-steps.ts';
import { extentOf, maxChanges, problemsOf, type Traced, traceRow, traceSeq } from './trace.ts';
import { duration } from './verdict.ts';

const answerMs = 3_000;
const once = z.string({ error: 'must be given once' });
const request = z.strictObject({
  pos: once.optional(),
  table: once.optional(),
  id: once.optional(),
  connection: once.optional(),
});

const actionNames: Readonly<Record<number, string>> = {
  [actions.insert]: 'INSERT',
  [actions.update]: 'UPDATE',
  [actions.delete]: 'DELETE',
  [actions.truncate]: 'TRUNCATE',
  [actions.shape]: 'SHAPE',
  [actions.rows]: 'ROWS',
  [actions.access]: 'POLICIES',
  [actions.revoke]: 'REVOCATION',
  [actions.canary]: 'CANARY',
};

const tableless: Readonly<Record<number, string>> = {
  [actions.canary]: '(canary)',
  [actions.revoke]: '(revocation)',
};

interface Explained {
  /** null: the change has no position yet */
  pos: string | null;
  table: string;
  action: string;
  /** the key; numbers keep all captured digits */
  id: unknown;
  /** the outcome of the change, in one sentence */
  summary: string;
  steps: Step[];
}

export interface Explanation {
  asked: Record<string, string>;
  summary: string;
  changes: Explained[];
}

export interface OpsExplainDeps {
  pool: Pool;
  catalog: Catalog;
  tail: Tail;
  roster: Roster;
}

interface Who {
  node: NodeStatus;
  id: number;
}

/**
 * Answers `?pos=…` and `?table=…&id=…`, each optionally with `&connection=…`. Throws PlankError INVALID,
 * which says what parameter is wrong, or PlankError UNAVAILABLE.
 */
export async function explain(query: unknown, deps: OpsExplainDeps): Promise<Explanation> {
  const parsed = request.safeParse(query);
  if (!parsed.success)
    throw fromZod(parsed.error, 'is not a parameter of this address: use pos, table, id and connection');
  const { pos, table: name, id, connection } = parsed.data;
  const table = name === undefined ? undefined : deps.catalog.byName(name);
  if (name !== undefined && !table) throw wrong('table', `is not attached: there is no table ${JSON.stringify(name)}`);
  if (pos === undefined && name === undefined) throw wrong('pos', 'is needed, or table and id');
  if (pos === undefined && id === undefined)
    throw wrong('id', 'is needed with table: the key, as in the URL of the row');
  if (id !== undefined && !table) throw wrong('table', 'is needed with id');
  const position = pos === undefined ? null : parsePosition(pos);
  if (pos !== undefined && !position) throw wrong('pos', 'is not a position, which looks like e45369600.17');
  const who = connection === undefined ? null : whoIs(connection, deps.roster);
  try {
    const found = position
      ? await byPosition(position, table, deps)
      : await byRow(table!, keyOf(table!, id!), id!, deps);
    const changes = await Promise.all(found.traced.map((traced) => explainOne(traced, who, deps)));
    return { asked: parsed.data as Record<string, string>, summary: found.summary ?? changes[0]!.summary, changes };
  } catch (error) {
    if (isUnavailable(error))
      throw new PlankError('UNAVAILABLE', 'Postgres does not answer in time: try again', { cause: error });
    throw error;
  }
}

const wrong = (path: string, message: string) => invalidFields([{ path, message }]);

/** Finds a client by its name in the console, such as `gateway-1/17`. */
function whoIs(connection: string, roster: Roster): Who {
  const match = /^([\w.-]{1,64})\/(\d{1,15})$/.exec(connection);
  if (!match) throw wrong('connection', 'is not the name of one, which looks like gateway-1/17');
  // the process that started last: for a moment after a restart, the roster has two processes of this name
  const node = roster.nodes().findLast((status) => status.role === 'gateway' && status.node === match[1]);
  if (!node) throw wrong('connection', `names a replica that does not answer: ${match[1]}`);
  return { node, id: Number(match[2]) };
}

function keyOf(table: Table, id: string): string[] {
  const key = parseKey(table, id);
  if (key.ok) return key.values;
  throw invalidFields(key.fields.map(({ message }) => ({ path: 'id', message })));
}

interface Found {
  traced: Traced[];
  /** shown instead of the summary of the first change */
  summary?: string;
}

async function byPosition(
  position: Position,
  table: Table | undefined,
  { pool, catalog }: OpsExplainDeps,
): Promise<Found> {
  const extent = await extentOf(pool);
  const { epoch, seq } = position;
  const none = (summary: string): Found => ({ traced: [], summary });
  // positions of earlier epochs stay valid up to the seq at which the next epoch began
  if (epoch > extent.epoch) return none('This position belongs to a history that this database does not have.');
  if (seq > extent.newest)
    return none(
      `No change has this position yet: the log ends at ${formatPosition({ ...extent, seq: extent.newest })}.`,
    );
  if (seq < extent.oldest)
    return none(
      `This position is no longer kept: the log begins at ${formatPosition({ ...extent, seq: extent.oldest })}.`,
    );
  const traced = await traceSeq(pool, seq);
  if (!traced) return none('The log still has this position, but the outbox no longer has the change.');
  const of = catalog.byId(traced.relation);
  if (table && of !== table)
    throw wrong('table', `does not fit: the change at this position is one of ${of?.name ?? 'no table'}`);
  return { traced: [traced] };
}

async function byRow(table: Table, key: readonly string[], id: string, { pool }: OpsExplainDeps): Promise<Found> {
  const traced = await traceRow(pool, table, key);
  if (traced.length > 0) {
    const count = traced.length === maxChanges ? `The last ${maxChanges} changes` : `All ${traced.length} changes`;
    return traced.length === 1
      ? { traced }
      : { traced, summary: `${count} of this row that are kept, the latest first.` };
  }
  const problems = await problemsOf(pool, table);
  const why =
    problems.length > 0
      ? `The table is not captured as it should be: ${problems.join('; ')}.`
      : 'Either the row has not changed within the retention, or the transaction has not committed, ' +
        'or it ran with disabled triggers or session_replication_role = replica.';
  return { traced: [], summary: `No change of ${table.name} ${id} was captured. ${why}` };
}

async function explainOne(traced: Traced, who: Who | null, deps: OpsExplainDeps): Promise<Explained> {
  const table = deps.catalog.byId(traced.relation);
  const { epoch } = await extentOf(deps.pool);
  const code = traced.action.charCodeAt(0);
  const former = deps.catalog.former.get(traced.relation);
  const isHidden = former !== undefined && !former.key && BigInt(traced.xid) < former.xid;
  const pos = traced.drain && formatPosition({ epoch, seq: traced.drain.seq });
  const steps: Step[] = [captured(traced), sequenced(traced, pos)];
  if (traced.drain) {
    const { seq } = traced.drain;
    const { roster } = deps;
    const replicas = roster.nodes().filter(({ role }) => role === 'gateway');
    const ask = async (node: NodeStatus) => {
      const args = { epoch, seq, ...(who?.node.instance === node.instance ? { client: who.id } : {}) };
      const [answer] = await roster.ask(node.instance, 'explain', args, answerMs);
      return { node, answer };
    };
    const [step, answers] = await Promise.all([published(seq, epoch, deps.tail), Promise.all(replicas.map(ask))]);
    const read = answers.map(({ node, answer }) => ({
      node: node.node,
      instance: node.instance,
      ...readAnswer(answer),
    }));
    steps.push(step, received(read, seq));
    if (who)
      steps.push(
        ...clientSteps(read.find(({ instance }) => instance === who.node.instance)?.answer, who, { code, seq }),
      );
    else steps.push(matched(read, code));
  }
  return {
    pos,
    table: table?.name ?? tableless[code] ?? `(detached, number ${traced.relation})`,
    action: actionNames[code] ?? traced.action,
    id: traced.key === null || isHidden ? null : JSON.parse(traced.key, keepDigits),
    summary: endOf(steps).text,
    steps,
  };
}

function captured({ outboxId, xid, capturedAt }: Traced): Step {
  const ago = duration(Date.now() - Date.parse(capturedAt));
  return {
    step: 'captured',
    state: 'done',
    text: `Captured ${ago} ago by transaction ${xid}, which has committed.`,
    at: capturedAt,
    transaction: xid,
    outboxId: Number(outboxId),
  };
}

function sequenced({ drain, capturedAt }: Traced, pos: string | null): Step {
  if (!drain) {
    const text = 'It waits in the outbox: no listener has given it a position yet. If that lasts, no listener leads.';
    return { step: 'sequenced', state: 'waiting', text };
  }
  const { seq, firstSeq, lastSeq, drainedAt } = drain;
  const tookMs = Date.parse(drainedAt) - Date.parse(capturedAt);
  const others = lastSeq === firstSeq ? 'alone' : `with ${lastSeq - firstSeq} others`;
  const text = `Given the position ${pos} ${duration(tookMs)} after its capture, drained ${others}.`;
  return { step: 'sequenced', state: 'done', text, seq, drain: { firstSeq, lastSeq, at: drainedAt } };
}

async function published(seq: number, epoch: number, tail: Tail): Promise<Step> {
  const step = 'published';
  const stream = tail.kind === 'redis' ? 'the Redis stream' : 'the stream in memory';
  try {
    const first = (await tail.history(seq - 1)).at(0);
    if (!first || first.epoch !== epoch)
      return {
        step,
        state: 'waiting',
        text: `Not in ${stream} yet, or no longer. Gateways read it from Postgres.`,
      };
    if (first.firstSeq > seq) {
      const text =
        `Published and trimmed since: ${stream} begins at seq ${first.firstSeq}. ` +
        'Gateways that need it read it from Postgres.';
      return { step, state: 'done', text };
    }
    return {
      step,
      state: 'done',
      text: `Published: entry ${first.lastSeq}-0 of ${stream} holds it.`,
      entry: `${first.lastSeq}-0`,
    };
  } catch {
    return { step, state: 'unknown', text: 'Redis does not answer: gateways read changes from Postgres.' };
  }
}

interface Read {
  node: string;
  /** null: the replica did not answer, or its answer has an unknown form */
  answer: ReplicaAnswer | null;
  error?: string;
}

function readAnswer(answer: Answer | undefined): Omit<Read, 'node'> {
  if (!answer) return { answer: null, error: 'does not answer' };
  const { data } = replicaAnswer.safeParse(answer.body);
  return data ? { answer: data } : { answer: null, error: answer.error ?? 'answers in the form of another version' };
}

function received(answers: readonly Read[], seq: number): Step {
  const replicas = answers.map(({ node, answer, error }) => ({
    node,
    received: answer ? answer.seq >= seq : null,
    ...(answer ? { position: formatPosition(answer), reads: answer.mode === 'tailing' ? 'stream' : 'log' } : { error }),
  }));
  const lacking = replicas.filter((replica) => replica.received !== true);
  const has = replicas.filter((replica) => replica.received === true).map(({ node }) => node);
  const first = has.length > 0 ? `Received by ${has.join(', ')}.` : 'Received by no replica that answers.';
  const rest = lacking.map(({ node, received }) =>
    received === false ? `${node} has not reached it yet.` : `${node} gave no answer.`,
  );
  const isWaiting = lacking.some((replica) => replica.received === false);
  const state = has.length === 0 || isWaiting ? 'waiting' : lacking.length > 0 ? 'unknown' : 'done';
  return { step: 'received', state, text: [first, ...rest].join(' '), replicas };
}

function matched(answers: readonly Read[], code: number): Step {
  if (isBreak(code) || code === actions.canary) {
    const text = 'It is no change of a row: no client gets it.';
    return { step: 'matched', state: 'no', text };
  }
  const known = answers.flatMap(({ node, answer }) => (answer ? [{ node, answer }] : []));
  const count = (of: 'matched' | 'subscriptions') => known.reduce((sum, { answer }) => sum + answer[of], 0);
  const [matching, all] = [count('matched'), count('subscriptions')];
  const replicas = known.map(({ node, answer }) => ({
    node,
    subscriptions: answer.subscriptions,
    matched: answer.matched,
  }));
  const text =
    all === 0
      ? 'Nobody is subscribed to its table at the moment.'
      : `Of the ${all} subscriptions that its table has now, it concerns ${matching}. ` +
        'Name a connection to see what that client got.';
  return { step: 'matched', state: matching > 0 ? 'done' : 'no', text, replicas };
}
