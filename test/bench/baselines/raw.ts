// The least that Node can do: a frame made once, written to each raw socket. Several changes of a flush are one write. It upgrades
// whoever asks, and reads nothing.

import { type AddressInfo, createServer, type Socket } from 'node:net';
import { framed, webSocketFraming } from '#gateway/channels/framing.ts';
import { message } from './message.ts';
import { Members, told } from './told.ts';

const frame = framed(webSocketFraming, JSON.stringify(message));
const members = new Members<Socket>();

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.once('data', (request) => {
    members.add(socket, request.toString('latin1').split(' ')[1]!);
    socket.resume();
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
  });
});

function write(buffer: Buffer, sockets: readonly Socket[]): void {
  for (let i = 0; i < sockets.length; i++) sockets[i]!.write(buffer);
}

server.listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, () => {
  told({
    port: (server.address() as AddressInfo).port,
    members,
    flush: (changes) => write(Buffer.concat(Array.from({ length: changes }, () => frame)), members.everyone),
    flushChannel: (_channel, sockets) => write(frame, sockets),
  });
});
