// Owns a database whose changes a test file captures, from before its tests until after them.

import { afterAll, beforeAll } from 'vitest';
import { createDatabase } from '../servers/servers.ts';
import { Capture } from '../truth/capture.ts';

/** For a test file, or a `describe`. `setUp` is SQL. */
export function captured(setUp?: string): Capture {
  const capture = new Capture();
  const stack = new AsyncDisposableStack();
  beforeAll(async () => {
    const database = await createDatabase();
    stack.defer(() => database.drop());
    await capture.lead(database.url);
    stack.defer(() => capture.stop());
    if (setUp !== undefined) await capture.run(setUp);
  });
  afterAll(() => stack.disposeAsync());
  return capture;
}
