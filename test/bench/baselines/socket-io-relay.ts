// Socket.IO with its Redis adapter, fed by notifications that carry whole rows; as its documentation tunes it: WebSocket only, no
// compression.
//
//   socket-io-relay.ts <database url> <channel> <redis url>      says its port

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Client } from 'pg';
import { Server } from 'socket.io';
import { serve } from '../child.ts';

const [databaseUrl = '', channel = '', redisUrl = ''] = process.argv.slice(2);
const server = createServer();
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  // the clients of a benchmark answer no pings
  pingInterval: 3_600_000,
  adapter: createAdapter(new Redis(redisUrl), new Redis(redisUrl)),
});
const client = new Client({ connectionString: databaseUrl });
client.on('notification', ({ payload }) => io.emit('change', JSON.parse(payload!)));
await client.connect();
await client.query(`listen ${channel}`);
await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, resolve));
serve((server.address() as AddressInfo).port);
