// Socket.IO as its authors tune it: WebSocket only, no compression, no msgpack towards clients, with its Redis adapter. A channel is
// a room; a change for all is an emit to all. It emits in the process that has the clients, which is the cheapest there is.
//
//   socket-io.ts <redis URL>

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { message } from './message.ts';
import { channelsOf, Members, told } from './told.ts';

const url = process.argv[2]!;
const http = createServer();
const io = new Server(http, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  // a ping in a round would be charged to it
  pingInterval: 3_600_000,
  adapter: createAdapter(new Redis(url), new Redis(url)),
});
/** only counted: emits go to rooms */
const members = new Members<null>();

io.on('connection', (socket) => {
  const path = socket.request.url!;
  members.add(null, path);
  for (const channel of channelsOf(path)) void socket.join(`room ${channel}`);
  socket.on('error', () => {});
});

http.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, () => {
  told({
    port: (http.address() as AddressInfo).port,
    members,
    flush(changes) {
      for (let i = 0; i < changes; i++) io.emit('change', message);
    },
    flushChannel(channel) {
      io.to(`room ${channel}`).emit('change', message);
    },
  });
});
