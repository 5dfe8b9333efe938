/**
 * `npm run example:worker`: handles each change of a table at least once, even changes that were committed while
 * the worker was down. Settings and their defaults: PLANK_URL (http://localhost:8000), TABLE (items), FOLDER for
 * the worker's position and results (.plank/worker).
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Change, createPlank, PlankError } from '#client/plank-client.ts'; // in an application: from 'plank-client'

const { PLANK_URL = 'http://localhost:8000', TABLE = 'items', FOLDER = '.plank/worker' } = process.env;
const positionFile = join(FOLDER, 'position');
const results = join(FOLDER, 'made');
const storeEveryMs = 500;

/**
 * If the worker is killed between `handle` and `store`, it handles the same change again. So repeating must be
 * harmless: a result is named by the change's position, and a second result replaces the first. A mail or a payment
 * would carry the position as its idempotency key.
 */
function handle({ action, id, data, pos }: Change): void {
  writeWhole(join(results, `${pos}.json`), JSON.stringify({ action, id, data }));
}

/** Writes the whole file or nothing, even if the process is killed while it writes. */
function writeWhole(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}

function stored(): string | undefined {
  try {
    return readFileSync(positionFile, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

mkdirSync(results, { recursive: true });
const plank = createPlank({ url: new URL('/ws', PLANK_URL) });
const from = stored();
const changes = plank.table(TABLE).changes(from === undefined ? {} : { from });

let last = from;
function store(position: string | null): void {
  if (position === null || position === last) return;
  writeWhole(positionFile, position);
  if (last === undefined) process.stdout.write(`begins at ${position}\n`);
  last = position;
}
// if a table has no changes for longer than the retention, the position of its last change is no longer kept
const timer = setInterval(() => store(changes.position()), storeEveryMs);
process.once('SIGTERM', () => void changes.return?.());

try {
  for await (const change of changes) {
    handle(change);
    store(change.pos);
  }
} catch (error) {
  if (!(error instanceof PlankError)) throw error;
  // RESYNC: the worker was down for longer than the retention. Compare its results with the rows,
  // then remove the position file.
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  clearInterval(timer);
  plank.close();
}
