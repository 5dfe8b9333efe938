// A service that does nothing but log, for a test that closes the pipe of its output. It reports by its IPC channel that it has
// written every line.

import { runService } from '#shared/process/lifecycle.ts';
import { createLog } from '#shared/process/logger.ts';

await runService(
  'log-writer',
  () => ({ STOP_TIMEOUT_MS: 5_000 }),
  async (_config, stack) => {
    // keeps the process running, as a server does
    const running = setInterval(() => {}, 1_000);
    stack.defer(async () => clearInterval(running));
    const log = createLog('info', 'log-writer', 'test');
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 50; i++) log.info({ i, text: 'x'.repeat(200) }, 'writing');
      process.stderr.write('writing\n');
      await new Promise((resolve) => setImmediate(resolve));
    }
    process.send!('written');
  },
);
