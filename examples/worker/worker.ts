/**
 * `npm run example:worker`: handles each change of a table at least once, also those that came while it was down. Settings: PLANK_URL
 * (http://localhost:8000), TABLE (items), FOLDER (where its position and what it made are kept; .plank/worker).
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Change, createPlank, PlankError } from '#client/plank-client.ts'; // yours: from 'plank-client'

const { PLANK_URL = 'http://localhost:8000', TABLE = 'items', FOLDER = '.plank/worker' } = process.env;
const positionFile = join(FOLDER, 'position');
const made = join(FOLDER, 'made');
const storeEveryMs = 500;

/**
 * A kill between this and `store` makes it happen again. So it is written to be repeated: what it makes is named by the change's position,
 * and a second time replaces the first. A mail or a payment would carry the position as its idempotency key.
 */
function handle({ action, id, data, pos }: Change): void {
  writeWhole(join(made, `${pos}.json`), JSON.stringify({ action, id, data }));
}

/** All of it or nothing, whenever the process is killed. */
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

mkdirSync(made, { recursive: true });
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
// where nothing happens for longer than Plank keeps history, the last change's position would be worth nothing
const timer = setInterval(() => store(changes.position()), storeEveryMs);
process.once('SIGTERM', () => void changes.return?.());

try {
  for await (const change of changes) {
    handle(change);
    store(change.pos);
  }
} catch (error) {
  if (!(error instanceof PlankError)) throw error;
  // RESYNC: it was away for too long. What it knows is to be compared with the rows, then the position file removed.
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  clearInterval(timer);
  plank.close();
}
