/**
 * `npm run example:todo`: serves the to-do list on http://localhost:8080 (PORT), for a gateway at
 * http://localhost:8000 (PLANK_URL). With DATABASE_URL, it first creates and attaches the list's
 * table.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createPool } from '#shared/postgres/postgres.ts';

const folder = new URL('.', import.meta.url);
const types = new Map([
  ['index.html', 'text/html; charset=utf-8'],
  ['todo.css', 'text/css; charset=utf-8'],
  ['todo.js', 'text/javascript; charset=utf-8'],
]);
const { DATABASE_URL, PORT = '8080', PLANK_URL = 'http://localhost:8000' } = process.env;
// the page runs the gateway's script, so the gateway's address comes from this server. From the
// page's own URL, a link could make the page run anybody's script.
const plank = new URL(PLANK_URL);
if (!/^https?:$/.test(plank.protocol)) throw new Error(`PLANK_URL must begin with http:// or https://: ${PLANK_URL}`);
const policy = [
  "default-src 'none'",
  `script-src 'self' ${plank.origin}`,
  `connect-src ${plank.origin} ${plank.origin.replace('http', 'ws')}`,
  "style-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');
const address = plank.href.replaceAll('&', '&amp;').replaceAll('"', '&quot;');

if (DATABASE_URL) {
  const onError = (error: Error) => process.stderr.write(`${error.message}\n`);
  const pool = createPool(DATABASE_URL, { applicationName: 'todo', statementTimeoutMs: 10_000, max: 1, onError });
  await pool.query(readFileSync(new URL('todo.sql', folder), 'utf8'));
  await pool.end();
}

function pageText(name: string): string {
  return readFileSync(new URL(name, folder), 'utf8').replace('data-plank=""', `data-plank="${address}"`);
}

const server = createServer(({ url = '/' }, response) => {
  const name = url.split('?')[0]!.slice(1) || 'index.html';
  const type = types.get(name);
  response.setHeader('Content-Type', type ?? 'text/plain; charset=utf-8');
  response.setHeader('Content-Security-Policy', policy);
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.statusCode = type ? 200 : 404;
  response.end(type ? pageText(name) : 'not found');
});
server.listen(Number(PORT), 'localhost', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`http://localhost:${port}/\n`);
});
