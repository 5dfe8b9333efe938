// A server that accepts WebSockets by `ws`, and does nothing else with them: what no relay can be faster than.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import { serve } from '../child.ts';

const server = createServer();
const webSockets = new WebSocketServer({ server, perMessageDeflate: false });
webSockets.on('connection', (ws) => ws.on('error', () => {}));
await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, resolve));
serve((server.address() as AddressInfo).port);
