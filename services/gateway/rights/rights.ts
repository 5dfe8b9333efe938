/**
 * What a viewer may do with a table, by the policies of plank.allow. One policy applies: the policy of the viewer's
 * role, else the policy of `authenticated` if the viewer has a token, else the policy of `anonymous`.
 *
 * What must stay true: a policy that cannot be judged allows nothing. A policy cannot be judged if its claims are
 * missing or of another type, if its columns are gone, or if it was written for another version of Plank.
 */
import { hash } from 'node:crypto';
import type { Log } from '#shared/process/logger.ts';
import type { Claims } from '../access/claims.ts';
import type { Viewer } from '../access/viewer.ts';
import type { Catalog, PolicyRow, Table } from '../catalog/catalog.ts';
import { ClaimMissing, claimAt, FilterError, isValueOf, type PolicyTerms, RowFilter } from '../filter/row-filter.ts';

/** A filter is null if nothing is allowed, and empty if every row is allowed. */
export interface TableRights {
  readonly table: Table;
  /** the role of the policy */
  readonly role: string;
  /** names of columns, including the columns of the key; null: all columns of the table */
  readonly readable: readonly string[] | null;
  /** names of columns; null: all writable columns of the table */
  readonly writable: readonly string[] | null;
  /** JSON values by column, which the server sets in rows that the viewer writes */
  readonly presets: ReadonlyMap<string, unknown>;
  readonly read: RowFilter | null;
  readonly insert: RowFilter | null;
  /** which rows an update may change; `check`: which rows an update may lead to */
  readonly update: RowFilter | null;
  readonly check: RowFilter | null;
  readonly delete: RowFilter | null;
}

/** A policy that cannot be used, and so allows nothing. */
export interface PolicyProblem {
  table: string;
  role: string;
  problem: string;
}

/** The last used TableRights are kept, at most this many. To make one takes about 30 µs. */
const maxKept = 10_000;
/** in a key of `#kept`, claims whose text is longer than this are replaced by their hash */
const maxKeyLength = 200;

/** A policy of a table after its check, for all claims. */
interface Compiled {
  /** unique among all compiled policies */
  id: number;
  /** why the policy allows nothing; null: it can be used */
  problem: string | null;
  /** the claims that the policy needs */
  claims: readonly string[];
  /** the tables that the policy's sets are made of, by name; undefined: there is no such table */
  tables: ReadonlyMap<string, Table | undefined>;
  /** the part of the rights that is the same for all claims */
  base: Omit<TableRights, 'presets' | 'read' | 'insert' | 'update' | 'check' | 'delete'>;
}

export class Rights {
  readonly #catalog: Catalog;
  readonly #log: Log;
  readonly #compiled = new WeakMap<Table, Map<PolicyRow, Compiled>>();
  #lastId = 0;
  /**
   * By policy and claims, in the order of the last use, the oldest use first. Null: one of the claims has another type.
   * The rights to a table that was altered since are not found again. They are dropped like all rights that were not
   * used for long.
   */
  readonly #kept = new Map<string, TableRights | null>();
  readonly #full = new WeakMap<Table, TableRights>();

  constructor({ catalog, log }: { catalog: Catalog; log: Log }) {
    this.#catalog = catalog;
    this.#log = log;
  }

  /**
   * With AUTH=off, `viewer` is null, and everything is allowed. Returns null if the table must look to this viewer as
   * if it did not exist.
   */
  of(table: Table, viewer: Viewer | null): TableRights | null {
    if (viewer === null) return this.#everything(table);
    const policy = policyFor(table, viewer);
    if (!policy) return null;
    const compiled = this.#compile(table, policy);
    if (compiled.problem !== null) return null;
    const key = keyOf(viewer.claims, compiled);
    if (key === null) return null;
    let rights = this.#kept.get(key);
    if (rights === undefined) rights = this.#bind(policy, compiled, viewer.claims);
    else this.#kept.delete(key);
    this.#kept.set(key, rights);
    if (this.#kept.size > maxKept) this.#kept.delete(this.#kept.keys().next().value!);
    return rights;
  }

  /** For operators: why the table does not exist for the viewer; null: the table exists. */
  whyNot(table: Table, viewer: Viewer | null): string | null {
    if (viewer === null || this.of(table, viewer) !== null) return null;
    const policy = policyFor(table, viewer);
    if (!policy) return `the table has no policy for ${list(rolesOf(viewer))}`;
    const { problem, claims } = this.#compile(table, policy);
    if (problem !== null) return `the policy of the role ${policy.role} cannot be used: ${problem}`;
    return `the policy of the role ${policy.role} needs ${list(claims)}: a claim is missing or of another type`;
  }

  /** The tables that exist for the viewer. */
  tablesFor(viewer: Viewer | null): Table[] {
    return this.#catalog.tables.filter((table) => this.of(table, viewer) !== null);
  }

  /** All policies that allow nothing because they cannot be used. */
  problems(): PolicyProblem[] {
    return this.#catalog.tables.flatMap((table) =>
      table.policies.flatMap((policy) => {
        const { problem } = this.#compile(table, policy);
        return problem === null ? [] : [{ table: table.name, role: policy.role, problem }];
      }),
    );
  }

  #everything(table: Table): TableRights {
    let rights = this.#full.get(table);
    if (!rights) {
      const all = RowFilter.parse(table, {});
      rights = {
        table,
        role: 'anybody',
        readable: null,
        writable: null,
        presets: new Map(),
        read: all,
        insert: all,
        update: all,
        check: all,
        delete: all,
      };
      this.#full.set(table, rights);
    }
    return rights;
  }

  /** Compiles a policy, again if the catalog now has another Table for one of the names in the policy. */
  #compile(table: Table, policy: PolicyRow): Compiled {
    let ofTable = this.#compiled.get(table);
    if (!ofTable) this.#compiled.set(table, (ofTable = new Map()));
    const known = ofTable.get(policy);
    if (known && [...known.tables].every(([name, named]) => this.#catalog.byName(name) === named)) return known;
    const tables = new Map<string, Table | undefined>();
    const tableNamed = (name: string) => {
      const named = this.#catalog.byName(name);
      tables.set(name, named);
      return named;
    };
    const base = baseOf(table, policy);
    let problem = policy.problem ?? null;
    try {
      if (problem === null) rightsBy(base, policy, { claims: null, tableNamed });
    } catch (error) {
      if (!(error instanceof FilterError)) throw error;
      problem = error.message;
    }
    if (problem !== null)
      this.#log.error(
        { table: table.name, role: policy.role, problem },
        'a policy cannot be used, so it allows nothing',
      );
    // only a policy without a problem has a bounded depth, so `claimsIn` cannot overflow the stack
    const claims = problem === null ? [...claimsIn(policy)] : [];
    const compiled = { id: ++this.#lastId, problem, claims, tables, base };
    ofTable.set(policy, compiled);
    return compiled;
  }

  #bind(policy: PolicyRow, { base }: Compiled, claims: Claims): TableRights | null {
    try {
      return rightsBy(base, policy, { claims, tableNamed: (name) => this.#catalog.byName(name) });
    } catch (error) {
      if (error instanceof ClaimMissing) return null;
      throw error;
    }
  }
}

const list = (names: readonly string[]) => names.join(', ');

/** The roles to try for the viewer, in order. The policy of the first role that has one applies. */
const rolesOf = ({ user, role }: Viewer): string[] => [
  ...new Set([role, ...(user === null ? [] : ['authenticated']), 'anonymous']),
];

function policyFor({ policies }: Table, viewer: Viewer): PolicyRow | undefined {
  for (const role of rolesOf(viewer)) {
    const policy = policies.find((one) => one.role === role);
    if (policy) return policy;
  }
  return undefined;
}

function baseOf(table: Table, policy: PolicyRow): Compiled['base'] {
  return {
    table,
    role: policy.role,
    readable: policy.read_columns && namesIn(table, [...policy.read_columns, ...table.keyColumns]),
    writable: policy.write_columns && namesIn(table, policy.write_columns),
  };
}

const noPresets: TableRights['presets'] = new Map();

/** Throws FilterError or ClaimMissing. */
function rightsBy(base: Compiled['base'], policy: PolicyRow, terms: PolicyTerms): TableRights {
  const { table } = base;
  // filters of a policy are often equal, and then share one RowFilter
  const made = new Map<string, RowFilter>();
  const filter = (name: 'read' | 'insert' | 'update' | 'delete' | 'check'): RowFilter | null => {
    if (policy[name] === null || policy[name] === undefined) return null;
    const one = RowFilter.policy(table, policy[name], name, terms);
    if (!made.has(one.key)) made.set(one.key, one);
    return made.get(one.key)!;
  };
  const update = filter('update');
  const check = filter('check');
  const presets = Object.entries(policy.presets ?? {});
  return {
    ...base,
    presets:
      presets.length === 0
        ? noPresets
        : new Map(presets.map(([name, value]) => [name, preset(table, name, value, terms)])),
    read: filter('read'),
    insert: filter('insert'),
    update,
    check: update && (check ?? update),
    delete: filter('delete'),
  };
}

/** Those of the names that are columns of the table now, in the table's order. */
const namesIn = ({ columns }: Table, names: readonly string[]): string[] =>
  columns.map(({ name }) => name).filter((name) => names.includes(name));

const isClaim = (value: unknown): value is { $claim: unknown } =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, '$claim');

/** Throws FilterError or ClaimMissing. */
function preset(table: Table, name: string, value: unknown, { claims }: PolicyTerms): unknown {
  const column = table.columns.find((candidate) => candidate.name === name);
  if (!column) throw new FilterError(`presets.${name}`, `is not a column of ${table.name}`, 'UNKNOWN_COLUMN');
  if (!isClaim(value)) {
    if (isValueOf(column, value)) return value;
    throw new FilterError(`presets.${name}`, `is not a value of the type ${column.type}`);
  }
  const { $claim: claim, ...others } = value;
  if (typeof claim !== 'string' || claim === '' || Object.keys(others).length > 0)
    throw new FilterError(`presets.${name}`, 'must be a value, or {"$claim": …} with the name of a claim and no more');
  if (claims === null) return null;
  const claimed = claimAt(claims, claim);
  if (!isValueOf(column, claimed)) throw new ClaimMissing(claim);
  return claimed;
}

/** The names of all claims in a policy that can be used. */
function claimsIn({ read, insert, update, delete: remove, check, presets }: PolicyRow): Set<string> {
  const found = new Set<string>();
  const collect = (value: unknown): void => {
    if (isClaim(value)) found.add(value.$claim as string);
    else if (typeof value === 'object' && value !== null) for (const member of Object.values(value)) collect(member);
  };
  for (const filter of [read, insert, update, remove, check]) collect(filter);
  // a preset that is no claim is a plain value: a JSON value may contain `$claim` without meaning a claim
  for (const value of Object.values(presets ?? {})) if (isClaim(value)) collect(value);
  return found;
}

/** The key in `#kept` for a policy and these claims. Null: a claim that the policy needs is missing. */
function keyOf(claims: Claims, { id, claims: names }: Compiled): string | null {
  try {
    const values = JSON.stringify(names.map((name) => claimAt(claims, name)));
    return `${id} ${values.length > maxKeyLength ? hash('sha256', values, 'base64url') : values}`;
  } catch (error) {
    if (error instanceof ClaimMissing) return null;
    throw error;
  }
}
