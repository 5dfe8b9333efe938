// What the log says: the rows of every table after each transaction, and the policy of the role `editor` at that place. It reads
// plank.read_log and shares no code with a gateway.

import { isDeepStrictEqual } from 'node:util';
import type { Pool } from '#shared/postgres/postgres.ts';
import { editorPolicies, type Row, type State } from './policies.ts';

type Tables = Record<'docs' | 'memberships' | 'team_members' | 'team_projects', ReadonlyMap<string, Row>>;

export interface DocChange {
  seq: number;
  action: string;
  key: string;
  new: Row | null;
  old: Row | null;
}

export interface Transaction {
  first: number;
  last: number;
  changes: DocChange[];
  before: Tables & State;
  after: Tables & State;
  /** index in editorPolicies */
  editorBefore: number;
  editorAfter: number;
}

export async function replay(pool: Pool): Promise<Transaction[]> {
  const { rows: names } = await pool.query<{ id: number; name: string }>('select id, name from plank.attached');
  const nameOf = new Map(names.map(({ id, name }) => [id, name]));
  const { rows } = await pool.query<{
    seq: string;
    relation: number;
    action: string;
    key: string | null;
    new: string | null;
    old: string | null;
    last: boolean;
  }>('select seq, relation, action, key, new, old, last from plank.read_log(0) order by seq');
  const transactions: Transaction[] = [];
  let state: Tables = { docs: new Map(), memberships: new Map(), team_members: new Map(), team_projects: new Map() };
  let editor = 0;
  let open: Transaction | undefined;
  let tables: Record<string, Map<string, Row>> = {};
  for (const row of rows) {
    const seq = Number(row.seq);
    if (!open) {
      open = {
        first: seq,
        last: seq,
        changes: [],
        before: state,
        after: state,
        editorBefore: editor,
        editorAfter: editor,
      };
      tables = {};
    }
    const name = nameOf.get(row.relation) as keyof Tables | undefined;
    if (name && 'IUD'.includes(row.action)) {
      const table = (tables[name] ??= new Map(state[name]));
      const old = parsed(row.old);
      const now = parsed(row.new);
      if (row.action !== 'I') table.delete(keyOf(name, old!));
      if (now) table.set(keyOf(name, now), now);
      if (name === 'docs') open.changes.push({ seq, action: row.action, key: row.key!, new: now, old });
    }
    if (name === 'docs' && row.action === 'A') editor = editorIn(row.new!);
    if (!row.last) continue;
    state = { ...state, ...tables };
    Object.assign(open, { last: seq, after: state, editorAfter: editor });
    transactions.push(open);
    open = undefined;
  }
  return transactions;
}

const parsed = (text: string | null): Row | null => (text === null ? null : (JSON.parse(text) as Row));

const keys: Record<keyof Tables, string[]> = {
  docs: ['id'],
  memberships: ['user_id', 'project_id'],
  team_members: ['user_id', 'team_id'],
  team_projects: ['team_id', 'project_id'],
};

const keyOf = (table: keyof Tables, row: Row) => JSON.stringify(keys[table].map((name) => row[name]));

function editorIn(policies: string): number {
  const own = (JSON.parse(policies) as { role: string; read: unknown; read_columns: string[] }[]).find(
    ({ role }) => role === 'editor',
  );
  const index = editorPolicies.findIndex((policy) =>
    policy === null ? own === undefined : isDeepStrictEqual(own?.read, policy.read),
  );
  if (index < 0) throw new Error(`the log has a policy that the run did not set: ${policies}`);
  return index;
}
