// Owns the sets of a gateway that moves on in the log only when the test says so.

import { Registry } from 'prom-client';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { parseImage, RowFilter } from '#gateway/filter/row-filter.ts';
import { SetLoader } from '#gateway/relay/set-loader.ts';
import { Sets } from '#gateway/relay/sets.ts';
import { Unfinished } from '#gateway/relay/unfinished.ts';
import { type Batch, packBatches } from '#shared/log/batch.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { gatewayMetrics } from '#shared/process/metrics.ts';
import { testPool } from '../servers/pool.ts';
import type { Stage } from './stage.ts';

/** Sets of a gateway that moves on only when the test says so. */
export async function followSets(stage: Stage, url = stage.databaseUrl) {
  const pool = testPool(url, 6);
  stage.afterwards(() => void pool.end());
  const catalog = new Catalog(stage.pool);
  await catalog.begin();
  const reader = new LogReader(stage.pool);
  await stage.arrived();
  let seq = (await reader.extent()).newest;
  const kept: Batch[] = [];
  const unfinished = new Unfinished();
  const sets = new Sets({
    loader: new SetLoader(pool),
    seq: () => seq,
    recent: (at) => kept.filter((batch) => batch.firstSeq <= at && at <= batch.lastSeq),
    metrics: gatewayMetrics(new Registry()),
  });
  const docs = catalog.byName('docs')!;
  const events: string[] = [];
  return {
    events,
    get seq() {
      return seq;
    },
    image: parseImage,
    idOf: (table: string) => catalog.byName(table)!.id,
    async resolve(policy: object, { name = 'set', sub = 'ada', onInvalid = () => {} } = {}) {
      const terms = { claims: { sub }, tableNamed: (table: string) => catalog.byName(table) };
      const filter = RowFilter.policy(docs, policy, 'read', terms);
      const { filter: loaded, ...held } = await sets.resolve(filter, () => {
        events.push(`${name} at ${seq}`);
        onInvalid();
      });
      const has = (team: number | null) => loaded.admits(parseImage(JSON.stringify({ id: 1, team })));
      return { ...held, filter: loaded, teams: () => [1, 2, 3, 4, 5].filter(has) };
    },
    /** Delivers all that is in the log. `as`: how the changes are cut into batches. */
    async moveOn(as: (batches: Batch[]) => Batch[] = (batches) => batches, onPart: (part: Batch) => void = () => {}) {
      await stage.arrived();
      const rows = (await Array.fromAsync(reader.stream(unfinished.lastSeq ?? seq))).flat();
      for (const batch of as(packBatches(1, rows))) {
        for (const part of sets.parts(unfinished.add(batch, sets.areUsed))) {
          events.push(`${part.firstSeq}-${part.lastSeq}`);
          kept.push(part);
          seq = part.lastSeq;
          onPart(part);
          sets.delivered(part);
          // clients come between two parts
          await new Promise(setImmediate);
        }
      }
    },
  };
}
