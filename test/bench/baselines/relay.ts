// What a first version of a relay is: one process that LISTENs for whole rows, and writes each of them to all its sockets. At its
// best: nothing is parsed, a frame is built once, and written past the WebSocket library.
//
//   relay.ts <database url> <channel>      says its port

import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Client } from 'pg';
import { WebSocketServer } from 'ws';
import { framed, webSocketFraming } from '#gateway/channels/framing.ts';
import { serve } from '../child.ts';

const [databaseUrl = '', channel = ''] = process.argv.slice(2);
const sockets = new Set<Socket>();
const server = createServer();
const webSockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
webSockets.on('connection', (ws, { socket }) => {
  sockets.add(socket);
  ws.on('close', () => sockets.delete(socket));
});
const client = new Client({ connectionString: databaseUrl });
client.on('notification', ({ payload }) => {
  const frame = framed(webSocketFraming, payload!);
  for (const socket of sockets) socket.write(frame);
});
await client.connect();
await client.query(`listen ${channel}`);
await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, resolve));
serve((server.address() as AddressInfo).port);
