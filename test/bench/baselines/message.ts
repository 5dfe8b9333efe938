/** A change as a gateway tells it on plank.v1, of a row like those that the benchmarks write: what the baselines send. */
export const message = {
  type: 'change',
  ch: 'k3f9abcdef',
  effect: 'add',
  table: 'bench_items',
  action: 'INSERT',
  id: 100001,
  data: {
    id: 100001,
    room: 500,
    name: 'a name of some length',
    note: 'x'.repeat(100),
    updated_at: '2026-01-01T00:00:00.123456+00:00',
  },
  pos: 'e45369600.100001',
  tx: '100761',
  last: true,
};
