/** Applies the changes of policies and the revocations in a batch, in the order of the log. */
import type { Batch } from '#shared/log/batch.ts';
import type { Log } from '#shared/process/logger.ts';
import type { Revocations } from '../access/revocations.ts';
import { type Catalog, parsePolicies } from '../catalog/catalog.ts';
import { breaksOf } from '../channels/change.ts';

interface Targets {
  catalog: Catalog;
  /** null: AUTH=off */
  revocations: Revocations | null;
  log: Log;
}

/** Returns the tables, by Table.id, whose policies changed. */
export function applyRights(batch: Batch, { catalog, revocations, log }: Targets): Set<number> {
  const ruled = new Set<number>();
  for (const { why, relation, text, seq, xid } of breaksOf(batch)) {
    if (why === 'revoke') revocations?.apply(text);
    if (why !== 'access') continue;
    const policies = parsePolicies(text);
    if (!policies) log.error({ seq }, 'an event of changed policies cannot be read: nothing is allowed');
    catalog.setPolicies(relation, policies ?? [], { seq, xid });
    ruled.add(relation);
  }
  return ruled;
}
