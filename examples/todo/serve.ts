/**
 * `npm run example:todo`: serves the to-do lists on http://localhost:8080 (PORT), for a gateway at
 * http://localhost:8000 (PLANK_URL) that has AUTH=jwt and the same AUTH_JWT_SECRET. With DATABASE_URL, it first creates
 * and attaches the tables.
 */
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createPool } from '#shared/postgres/postgres.ts';
import { Tokens } from './tokens.ts';

const folder = new URL('.', import.meta.url);
const scripts = ['todo.js', 'lists.js', 'items.js', 'session.js'];
const types = new Map([
  ['index.html', 'text/html; charset=utf-8'],
  ['todo.css', 'text/css; charset=utf-8'],
  ...scripts.map((name) => [name, 'text/javascript; charset=utf-8'] as const),
]);
const { AUTH_JWT_SECRET, DATABASE_URL, PORT = '8080', PLANK_URL = 'http://localhost:8000' } = process.env;
if (!AUTH_JWT_SECRET) throw new Error('AUTH_JWT_SECRET is not set: give it the same value as at the gateway');
const tokens = new Tokens(AUTH_JWT_SECRET);
// the page runs the gateway's script, so the gateway's address comes from this server. From the
// page's own URL, a link could make the page run anybody's script.
const plank = new URL(PLANK_URL);
if (!/^https?:$/.test(plank.protocol)) throw new Error(`PLANK_URL must begin with http:// or https://: ${PLANK_URL}`);
const policy = [
  "default-src 'none'",
  `script-src 'self' ${plank.origin}`,
  `connect-src 'self' ${plank.origin} ${plank.origin.replace('http', 'ws')}`,
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
  await pool.query(readFileSync(new URL('tables.sql', folder), 'utf8'));
  await pool.end();
}

async function answer({ method, url = '/' }: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = url.split('?')[0]!.slice(1) || 'index.html';
  response.setHeader('Content-Security-Policy', policy);
  response.setHeader('X-Content-Type-Options', 'nosniff');
  const token = method === 'POST' && path.startsWith('token/') ? await tokens.of(path.slice(6)) : null;
  const type = token === null ? types.get(path) : 'application/jwt';
  response.setHeader('Content-Type', type ?? 'text/plain; charset=utf-8');
  if (token !== null) response.setHeader('Cache-Control', 'no-store');
  response.statusCode = type ? 200 : 404;
  response.end(token ?? (type ? pageText(path) : 'not found'));
}

function pageText(name: string): string {
  return readFileSync(new URL(name, folder), 'utf8').replace('data-plank=""', `data-plank="${address}"`);
}

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(PORT), 'localhost', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`http://localhost:${port}/\n`);
});
