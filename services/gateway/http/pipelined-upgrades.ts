/**
 * Passes on upgrades to WebSocket, except pipelined ones. A client may send an upgrade after a request
 * that has not been answered yet (pipelining). Node emits such an upgrade at once, and would later write
 * the answer to the first request into the WebSocket. An HTTP error cannot refuse the upgrade either: the
 * client would take the error for the answer to its first request. So `onUpgrade` closes the connection.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

export function onUpgrade(
  server: Server,
  upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void,
): void {
  /** by connection: the last answer that has not been sent completely */
  const unanswered = new WeakMap<Duplex, ServerResponse>();
  server.prependListener('request', ({ socket }, response) => {
    unanswered.set(socket, response);
    response.once('close', () => {
      if (unanswered.get(socket) === response) unanswered.delete(socket);
    });
  });
  server.on('upgrade', (request, socket, head) => {
    if (unanswered.has(socket)) socket.destroy();
    else upgrade(request, socket, head);
  });
}
