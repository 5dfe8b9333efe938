/** Plain mode's channel: every change of a set of tables. */
import type { Batch } from '#shared/log/batch.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { Channel, type Description, type Member } from './channel.ts';
import type { Frames, Ring } from './ring.ts';
import { buildFrames, type FrameHeads } from './table-frames.ts';

/** Names of tables; null: every attached table, also those attached later. */
export type TableSet = readonly string[] | null;

export function tablesKey(tables: TableSet): string {
  return tables === null ? '*' : JSON.stringify([...tables].sort());
}

export class TablesChannel<M extends Member = Member> extends Channel<M> {
  readonly key: string;
  readonly tables: TableSet;
  readonly #heads: FrameHeads;
  readonly #wants: (relation: number) => boolean;

  constructor(tables: TableSet, deps: { catalog: Catalog; heads: FrameHeads; ring: Ring }) {
    super(deps.ring);
    this.key = tablesKey(tables);
    this.tables = tables;
    this.#heads = deps.heads;
    const wanted = tables === null ? null : new Set(tables);
    const { catalog } = deps;
    this.#wants = wanted === null ? () => true : (relation) => wanted.has(catalog.byId(relation)?.name ?? '');
  }

  get name(): string {
    return this.key;
  }

  get table(): null {
    return null;
  }

  describe(): Description {
    return { table: this.tables?.join(', ') ?? 'every table', filter: null, columns: null };
  }

  covers(tableName: string): boolean {
    return this.tables === null || this.tables.includes(tableName);
  }

  effectOf(): 'sent' {
    return 'sent';
  }

  /** Plain mode has no snapshots, so no change was seen already. */
  framesAfter(batch: Batch, after: number): Frames {
    return buildFrames(batch, this.#heads, this.#wants, after);
  }
}
