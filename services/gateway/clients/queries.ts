/**
 * Resolves requests of clients to queries, under the rights of the viewer. If a policy compares rows with sets of other
 * tables, the sets are loaded first, which takes time. What must stay true: a query is passed on only in the same turn
 * of the event loop in which its rights and its sets were checked to be current.
 */
import type { Log } from '#shared/process/logger.ts';
import type { Viewer } from '../access/viewer.ts';
import type { Table } from '../catalog/catalog.ts';
import {
  isSame,
  queryOf,
  Refused,
  type RowQuery,
  type RowRequest,
  type Terms,
  wholeTable,
  withSets,
} from '../channels/row-query.ts';
import type { ResolvedSets, SetGuard, Sets } from '../relay/sets.ts';

/** if rights or sets change during the load, the load is tried again; after this many attempts, the request fails */
const maxAttempts = 5;

const nothing = () => {};
const noGuards: readonly never[] = [];

/** Queries whose sets are loaded. The sets stay loaded until `release`. */
export interface Hold {
  readonly queries: readonly RowQuery[];
  /** false: the queries have no sets, so nothing needs to be released */
  readonly hasSets: boolean;
  /** for a cursor that resumes after a position (set-search.ts) */
  readonly guards: readonly SetGuard[];
  /** called once, when one of the sets becomes invalid: then nothing more may be sent under the sets */
  onVoid: () => void;
  release(): void;
}

/** Throws Refused. */
type Resolve = () => readonly RowQuery[];

export class Queries {
  readonly #terms: Terms;
  readonly #sets: Pick<Sets, 'resolve'> | null;
  readonly #log: Log;

  /** @param sets null: AUTH=off, and no filter has sets */
  constructor(terms: Terms, sets: Pick<Sets, 'resolve'> | null, log: Log) {
    this.#log = log;
    this.#terms = terms;
    this.#sets = sets;
  }

  /** The query for a request. Does not load the query's sets. Throws Refused. */
  of(request: RowRequest, viewer: Viewer | null): RowQuery {
    return queryOf(request, this.#terms, viewer);
  }

  /** Whether policies of one of the tables changed after this seq. `names` null: all tables. */
  haveChanged(names: readonly string[] | null, after: number): boolean {
    const { catalog } = this.#terms;
    return this.#tables(names).some(({ id }) => after < catalog.policiesChangedAt(id));
  }

  /** Queries for those of the tables that the viewer may read. `names` null: all tables. */
  ofTables(names: readonly string[] | null, viewer: Viewer): RowQuery[] {
    return this.#tables(names).flatMap((table) => wholeTable(table, this.#terms.rights, viewer) ?? []);
  }

  #tables(names: readonly string[] | null): readonly Table[] {
    const { catalog } = this.#terms;
    return names === null ? catalog.tables : names.flatMap((name) => catalog.byName(name) ?? []);
  }

  /**
   * Calls `use` with the queries that `resolve` returns. If the queries have no sets, calls `use` at once and returns
   * undefined. Otherwise loads the sets, calls `resolve` again to check the queries, and calls `use`. The returned
   * promise resolves after `use`, and rejects with Refused. Throws an error of the first call of `resolve`.
   */
  load(resolve: Resolve, use: (hold: Hold) => void): Promise<void> | undefined {
    const queries = resolve();
    if (queries.some(({ filter }) => filter !== null && filter.sources.length > 0))
      return this.#loadSets(queries, resolve, use);
    use({ queries, hasSets: false, guards: noGuards, onVoid: nothing, release: nothing });
    return undefined;
  }

  async #loadSets(first: readonly RowQuery[], resolve: Resolve, use: (hold: Hold) => void): Promise<void> {
    if (!this.#sets) throw new Refused('UNAVAILABLE', 'this gateway loads no sets of policies');
    let queries = first;
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const loading = new Loading(this.#sets, this.#log);
      try {
        const hold = await loading.hold(queries);
        const now = resolve();
        if (!loading.isVoid && areSame(queries, now)) return use(hold);
        queries = now;
      } catch (error) {
        loading.release();
        throw error;
      }
      loading.release();
    }
    throw new Refused('UNAVAILABLE', 'the rights to these rows change too often at the moment');
  }
}

/** Releases a hold. Its `onVoid` is not called any more. */
export function drop(hold: Hold): void {
  hold.onVoid = nothing;
  hold.release();
}

/** One attempt to load the sets of some queries. */
class Loading {
  readonly #sets: Pick<Sets, 'resolve'>;
  readonly #log: Log;
  #resolved: ResolvedSets[] = [];
  #hold: Hold | null = null;
  #isReleased = false;
  isVoid = false;

  constructor(sets: Pick<Sets, 'resolve'>, log: Log) {
    this.#sets = sets;
    this.#log = log;
  }

  /** Rejects with Refused. The caller must call `release` then. */
  async hold(queries: readonly RowQuery[]): Promise<Hold> {
    const loaded = await Promise.all(queries.map((query) => this.#load(query)));
    const guards = this.#resolved.flatMap(({ guard }) => guard ?? []);
    this.#hold = { queries: loaded, hasSets: true, guards, onVoid: nothing, release: () => this.release() };
    return this.#hold;
  }

  release(): void {
    this.#isReleased = true;
    for (const resolved of this.#resolved.splice(0)) resolved.release();
  }

  async #load(query: RowQuery): Promise<RowQuery> {
    if (query.filter === null || query.filter.sources.length === 0) return query;
    try {
      const resolved = await this.#sets.resolve(query.filter, () => this.#onInvalid());
      this.#resolved.push(resolved);
      // if the sets of another query could not be loaded, `release` was called before these sets were added
      if (this.#isReleased) this.release();
      return withSets(query, resolved.filter);
    } catch (error) {
      this.#log.warn({ err: error, table: query.table.name }, 'could not load the sets of a policy');
      throw new Refused('UNAVAILABLE', 'who may read these rows cannot be found out at the moment', { cause: error });
    }
  }

  #onInvalid(): void {
    if (this.isVoid) return;
    this.isVoid = true;
    this.#hold?.onVoid();
  }
}

function areSame(some: readonly RowQuery[], others: readonly RowQuery[]): boolean {
  return (
    some.length === others.length && some.every((one, i) => one.table === others[i]!.table && isSame(one, others[i]!))
  );
}
