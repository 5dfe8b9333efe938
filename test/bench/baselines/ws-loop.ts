// What most begin with: `ws`, and a loop that sends each change to each client as a string.

import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { message } from './message.ts';
import { Members, told } from './told.ts';

const text = JSON.stringify(message);
const members = new Members<WebSocket>();

const server = new WebSocketServer({ port: 0, host: '127.0.0.1', backlog: 4_096, perMessageDeflate: false });
server.on('connection', (ws, request) => {
  ws.on('message', () => {});
  ws.on('error', () => {});
  members.add(ws, request.url!);
});

server.on('listening', () => {
  told({
    port: (server.address() as AddressInfo).port,
    members,
    flush(changes) {
      for (let i = 0; i < changes; i++) for (const ws of members.everyone) ws.send(text);
    },
    flushChannel(_channel, sockets) {
      for (const ws of sockets) ws.send(text);
    },
  });
});
