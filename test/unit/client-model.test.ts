// The SDK's state machine against a model of the whole protocol.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Action, actions, RelayModel } from '../support/truth/relay-model.ts';

const action: fc.Arbitrary<Action> = fc.tuple(fc.constantFrom(...actions), fc.nat(1_000), fc.nat(1_000));

test('subscriptions have the rows of the log, miss no change and get none twice, whatever the network does', () => {
  const seen: Record<string, number> = {};
  fc.assert(
    fc.property(fc.array(action, { maxLength: 400, size: 'max' }), (steps) => {
      const model = new RelayModel();
      model.act(['subscribe', 0, 1]);
      for (const step of steps) model.act(step);
      model.settle();
      for (const [kind, count] of Object.entries(model.counts)) seen[kind] = (seen[kind] ?? 0) + count;
    }),
    { numRuns: 2_000 },
  );
  for (const kind of ['snapshot', 'change', 'position', 'resync']) expect(seen[kind]).toBeGreaterThan(1_000);
}, 30_000);
