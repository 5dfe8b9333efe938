/** The listener's HTTP server for operators: /health, /health/live, /health/ready and /metrics. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Server as TcpServer } from 'node:net';
import type { Registry } from 'prom-client';
import { close, listen } from '#shared/process/listen.ts';
import { once } from '#shared/waiting.ts';

interface HttpOptions {
  host: string;
  port: number;
  registry: Registry;
  /** the content of /health; the HTTP status is 200 if `ready`, else 503 */
  health: () => { ready: boolean; [field: string]: unknown };
}

export class HttpServer {
  readonly #options: HttpOptions;
  readonly #server: Server;
  #also: TcpServer[] = [];

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => void this.#answer(request, response));
    this.#server.headersTimeout = 5_000;
    this.#server.requestTimeout = 10_000;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  readonly start = once(async () => {
    const { host, port } = this.#options;
    this.#also = await listen(this.#server, { host, port, settings: { host: 'HOST', port: 'LISTENER_PORT' } });
  });

  readonly stop = once(async () => {
    this.#server.closeAllConnections();
    await Promise.all([this.#server, ...this.#also].map(close));
  });

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status, type, body } = await this.#page(request.url ?? '/');
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  async #page(url: string): Promise<{ status: number; type: string; body: string }> {
    const json = (status: number, value: unknown) => ({
      status,
      type: 'application/json',
      body: JSON.stringify(value),
    });
    switch (url.split('?')[0]) {
      case '/metrics':
        return { status: 200, type: this.#options.registry.contentType, body: await this.#options.registry.metrics() };
      case '/health/live':
        return json(200, { status: 'ok' });
      case '/health':
      case '/health/ready': {
        const { ready, ...rest } = this.#options.health();
        return json(ready ? 200 : 503, { status: ready ? 'ok' : 'degraded', ...rest });
      }
      default:
        return json(404, { status: 404, title: 'There is nothing here' });
    }
  }
}
