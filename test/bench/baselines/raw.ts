// The least that Node can do: a frame made once, written to each raw socket. Several changes of a flush are one write. It upgrades
// every connection whose first request asks for it, and reads nothing more. Other requests are the health checks of nginx.

import { type AddressInfo, createServer, type Socket } from 'node:net';
import { framed, webSocketFraming } from '#gateway/channels/framing.ts';
import { message } from './message.ts';
import { Members, told } from './told.ts';

const frame = framed(webSocketFraming, JSON.stringify(message));
const members = new Members<Socket>();

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.on('data', function first(bytes) {
    const request = bytes.toString('latin1');
    if (!/\r\nupgrade: websocket\r\n/i.test(request)) {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    socket.off('data', first);
    members.add(socket, request.split(' ')[1]!);
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
