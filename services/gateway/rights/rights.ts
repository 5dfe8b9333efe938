/**
 * What a viewer may do with a table, by the policies of plank.allow. One policy applies: that of the viewer's
 * role, else that of `authenticated` if the viewer has a token, else that of `anonymous`. What must stay true:
 * where a policy cannot be judged, nothing is allowed. Its claims are missing or of another type, its columns
 * are gone, or it was written for another version of Plank.
 */
import type { Log } from '#shared/process/logger.ts';
import type { Viewer } from '../access/viewer.ts';
import type { Catalog, PolicyRow, Table } from '../catalog/catalog.ts';
import { ClaimMissing, type Claims, claimAt, FilterError, RowFilter } from '../filter/row-filter.ts';

/** A filter is null where nothing is allowed, and empty where every row is. */
export interface TableRights {
  readonly table: Table;
  /** the role of the policy */
  readonly role: string;
  /** names of columns, with those of the key; null: all columns of the table */
  readonly readable: readonly string[] | null;
  /** names of columns; null: all that are writable */
  readonly writable: readonly string[] | null;
  /** JSON values by column, which the server sets in rows that the viewer writes */
  readonly presets: ReadonlyMap<string, unknown>;
  readonly read: RowFilter | null;
  readonly insert: RowFilter | null;
  /** which rows may be changed, and to what */
  readonly update: RowFilter | null;
  readonly check: RowFilter | null;
  readonly delete: RowFilter | null;
}

/** A policy that cannot be used, so that it allows nothing. */
export interface PolicyProblem {
  table: string;
  role: string;
  problem: string;
}

/** The rights of this many viewers are kept for each policy. */
const maxKept = 10_000;

/** A policy, with what was made of it. */
interface Compiled {
  /** why the policy allows nothing; null: it can be used */
  problem: string | null;
  /** the claims that the policy needs */
  claims: readonly string[];
  /** the tables that its sets are made of, by name */
  tables: ReadonlyMap<string, Table | undefined>;
  /** by the values of the claims; null: one of the claims is missing or of another type */
  rights: Map<string, TableRights | null>;
}

export class Rights {
  readonly #catalog: Catalog;
  readonly #log: Log;
  readonly #compiled = new WeakMap<PolicyRow, Compiled>();
  readonly #full = new WeakMap<Table, TableRights>();

  constructor({ catalog, log }: { catalog: Catalog; log: Log }) {
    this.#catalog = catalog;
    this.#log = log;
  }

  /**
   * `viewer` null: AUTH=off, and everything is allowed. Null: for this viewer the table looks as if it did not
   * exist.
   */
  of(table: Table, viewer: Viewer | null): TableRights | null {
    if (viewer === null) return this.#everything(table);
    const policy = policyFor(table, viewer);
    if (!policy) return null;
    const compiled = this.#compile(table, policy);
    if (compiled.problem !== null) return null;
    const key = keyOf(viewer.claims, compiled.claims);
    if (key === null) return null;
    let rights = compiled.rights.get(key);
    if (rights === undefined) {
      rights = this.#bind(table, policy, viewer.claims);
      if (compiled.rights.size >= maxKept) compiled.rights.delete(compiled.rights.keys().next().value!);
      compiled.rights.set(key, rights);
    }
    return rights;
  }

  /** Why the table does not exist for the viewer, for operators; null: it exists. */
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

  /** A policy is compiled again when one of the tables that it names is another one. */
  #compile(table: Table, policy: PolicyRow): Compiled {
    const known = this.#compiled.get(policy);
    if (known && [...known.tables].every(([name, named]) => this.#catalog.byName(name) === named)) return known;
    const tables = new Map<string, Table | undefined>([[table.name, table]]);
    const tableNamed = (name: string) => {
      const named = this.#catalog.byName(name);
      tables.set(name, named);
      return named;
    };
    let problem = policy.problem ?? null;
    try {
      if (problem === null) rightsBy(table, policy, { claims: null, tableNamed });
    } catch (error) {
      if (!(error instanceof FilterError)) throw error;
      problem = error.message;
    }
    if (problem !== null)
      this.#log.error(
        { table: table.name, role: policy.role, problem },
        'a policy cannot be used, so it allows nothing',
      );
    const compiled = { problem, claims: [...claimsIn(policy)], tables, rights: new Map() };
    this.#compiled.set(policy, compiled);
    return compiled;
  }

  #bind(table: Table, policy: PolicyRow, claims: Claims): TableRights | null {
    try {
      return rightsBy(table, policy, { claims, tableNamed: (name) => this.#catalog.byName(name) });
    } catch (error) {
      if (error instanceof ClaimMissing) return null;
      throw error;
    }
  }
}

const list = (names: readonly string[]) => names.join(', ');

/** The roles whose policies may apply to the viewer, the first one first. */
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

/** Throws FilterError or ClaimMissing. */
function rightsBy(table: Table, policy: PolicyRow, terms: Parameters<typeof RowFilter.policy>[3]): TableRights {
  const filter = (name: 'read' | 'insert' | 'update' | 'delete' | 'check') =>
    policy[name] === null || policy[name] === undefined ? null : RowFilter.policy(table, policy[name], name, terms);
  const update = filter('update');
  return {
    table,
    role: policy.role,
    readable: policy.read_columns && namesIn(table, [...policy.read_columns, ...table.keyColumns]),
    writable: policy.write_columns && namesIn(table, policy.write_columns),
    presets: new Map(Object.entries(policy.presets ?? {}).map(([name, value]) => [name, preset(value, terms.claims)])),
    read: filter('read'),
    insert: filter('insert'),
    update,
    check: update && (filter('check') ?? update),
    delete: filter('delete'),
  };
}

/** In the table's order. A column that is gone, or has another name, is not among them. */
const namesIn = ({ columns }: Table, names: readonly string[]): string[] =>
  columns.map(({ name }) => name).filter((name) => names.includes(name));

const isClaim = (value: unknown): value is { $claim: string } =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, '$claim');

function preset(value: unknown, claims: Claims | null): unknown {
  return isClaim(value) && claims !== null ? claimAt(claims, value.$claim) : value;
}

/** The names of all claims in a policy. */
function claimsIn(value: unknown, found = new Set<string>()): Set<string> {
  if (isClaim(value)) found.add(value.$claim);
  else if (typeof value === 'object' && value !== null)
    for (const member of Object.values(value)) claimsIn(member, found);
  return found;
}

/** Null: one of the claims is missing. */
function keyOf(claims: Claims, names: readonly string[]): string | null {
  try {
    return JSON.stringify(names.map((name) => claimAt(claims, name)));
  } catch (error) {
    if (error instanceof ClaimMissing) return null;
    throw error;
  }
}
