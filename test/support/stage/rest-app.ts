// Owns a gateway's REST server alone, on a real Postgres and within the test's process: no listener, no WebSockets. What must stay
// true: the answer to an error is a problem document (RFC 9457) whose `status` is that of the response.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, expect } from 'vitest';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { createApp, type Health } from '#gateway/http/app.ts';
import { Rights } from '#gateway/rights/rights.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { testPool } from '../servers/pool.ts';
import { createDatabase, type TestDatabase } from '../servers/servers.ts';

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** Empty where the answer is no problem document. */
  problem: { code: string; status: number; detail: string; errors?: { path: string; message: string }[] };
}

export class RestApp {
  database!: TestDatabase;
  pool!: Pool;
  base = '';
  /** The answer of /health. Each test begins with a healthy one. */
  health!: Health;
  ready!: { ready: boolean; reason?: string };
  /** The lines logged since the test began. */
  readonly logged: string[] = [];
  readonly #stack = new AsyncDisposableStack();

  /** For a test file: starts before its tests and ends after them. `setUp` is SQL. */
  static of(setUp = ''): RestApp {
    const app = new RestApp();
    beforeAll(() => app.#start(setUp));
    beforeEach(() => {
      app.health = { status: 'ok', node: 'gw-1', connections: 3, database: 'connected' };
      app.ready = { ready: true };
      app.logged.length = 0;
    });
    afterAll(() => app.#stack.disposeAsync());
    return app;
  }

  async #start(setUp: string): Promise<void> {
    this.database = await createDatabase();
    this.#stack.defer(() => this.database.drop());
    this.pool = testPool(this.database.url, 4, 'plank rest test');
    this.#stack.defer(() => this.pool.end());
    await this.pool.query(setUp);
    this.base = await this.serve(this.pool, this.#stack);
  }

  /** Serves REST with the rights of this pool's role, until the stack is disposed of. Resolves with the address. */
  async serve(pool: Pool, stack: AsyncDisposableStack): Promise<string> {
    const catalog = new Catalog(this.pool);
    await catalog.load();
    const server = createServer(
      createApp({
        config: { CORS_ORIGINS: ['https://shop.example'], MAX_BODY_BYTES: 256 * 1024 },
        log: createLog('info', 'test', 'gw-1', { write: (line: string) => void this.logged.push(line) }),
        catalog,
        rights: new Rights({ catalog, log: createLog('silent', 'test', 'gw-1') }),
        pool,
        health: () => Promise.resolve(this.health),
        ready: () => this.ready,
        room: () => true,
        registry: new Registry(),
      }),
    );
    stack.defer(() => new Promise((resolve) => server.close(() => resolve())));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  readonly call = async (
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> => {
    const init: RequestInit = { method, headers };
    if (body !== undefined) {
      init.headers = { 'content-type': 'application/json', ...headers };
      init.body = typeof body === 'string' || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body);
    }
    const response = await fetch(this.base + path, init);
    const text = await response.text();
    const isProblem = response.headers.get('content-type')?.startsWith('application/problem+json');
    if (response.status >= 400 && response.status !== 503) expect(isProblem).toBe(true);
    const problem = (isProblem ? JSON.parse(text) : {}) as Answer['problem'];
    if (isProblem) expect(problem.status).toBe(response.status);
    return { status: response.status, headers: response.headers, text, problem };
  };
}
