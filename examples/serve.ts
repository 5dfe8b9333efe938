/**
 * `npm run example:todo`: serves the to-do list on http://localhost:8080 (PORT), for a Plank at http://localhost:8000 (PLANK_URL).
 * With DATABASE_URL, it creates and attaches the list's table first.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createPool } from '../shared/postgres.ts';

const folder = new URL('todo/', import.meta.url);
const types: Record<string, string> = {
  'index.html': 'text/html; charset=utf-8',
  'todo.css': 'text/css; charset=utf-8',
  'todo.js': 'text/javascript; charset=utf-8',
};
const { DATABASE_URL, PORT = '8080', PLANK_URL = 'http://localhost:8000' } = process.env;

if (DATABASE_URL) {
  const onError = (error: Error) => process.stderr.write(`${error.message}\n`);
  const pool = createPool(DATABASE_URL, { applicationName: 'todo', statementTimeoutMs: 10_000, max: 1, onError });
  await pool.query(readFileSync(new URL('todo.sql', folder), 'utf8'));
  await pool.end();
}

const server = createServer(({ url = '/' }, response) => {
  const name = new URL(url, 'http://localhost').pathname.slice(1) || 'index.html';
  const type = types[name];
  if (type) response.setHeader('Content-Type', type);
  response.statusCode = type ? 200 : 404;
  response.end(type ? readFileSync(new URL(name, folder)) : 'There is nothing here.');
});
server.listen(Number(PORT), () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`http://localhost:${port}/?plank=${PLANK_URL}\n`);
});
