import { defineConfig } from 'vitest/config';

// One project a folder, in this order of cost. Files that load the machine run alone, so that none waits for another's load.
const project = (name: string, options: { timeoutMs: number; alone?: boolean }) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    globalSetup: ['test/support/servers/global-setup.ts'],
    testTimeout: options.timeoutMs,
    hookTimeout: 120_000,
    // by itself it would wait for one second, which a machine with other work takes for a page
    expect: { poll: { timeout: 10_000 } },
    fileParallelism: !options.alone,
    sequence: { groupOrder: options.alone ? 2 : 1 },
  },
});

export default defineConfig({
  test: {
    maxWorkers: 2,
    coverage: {
      provider: 'v8',
      include: ['services/**/*.ts', 'shared/**/*.ts', 'client/**/*.ts'],
      exclude: ['client/build.ts', 'client/dist/**'],
      reporter: ['text', 'html'],
      // A floor for the projects `unit` and `contract`, some 2 % below what they reach. The rest of the
      // services needs a Postgres or processes of its own, which the other projects have.
      thresholds: {
        lines: 62,
        branches: 52,
        'client/state/**': { lines: 90, branches: 85 },
        'services/gateway/filter/**': { lines: 92, branches: 89 },
        'services/gateway/channels/**': { lines: 89, branches: 83 },
      },
    },
    projects: [
      project('unit', { timeoutMs: 10_000 }),
      project('contract', { timeoutMs: 30_000 }),
      project('integration', { timeoutMs: 60_000 }),
      project('e2e', { timeoutMs: 60_000 }),
      project('fault', { timeoutMs: 120_000, alone: true }),
      project('bench', { timeoutMs: 180_000, alone: true }),
    ],
  },
});
