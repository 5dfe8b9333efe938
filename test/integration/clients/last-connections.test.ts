// A gateway that stops answers clients that connected before.

import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { createDatabase } from '../../support/servers/servers.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';

test('a gateway that stops answers requests on connections that waited to be accepted', async () => {
  await using stack = new AsyncDisposableStack();
  const database = await createDatabase();
  stack.defer(() => database.drop());
  const embedded = await startEmbedded(database.url);
  stack.defer(() => embedded.stop());
  const body = JSON.stringify({ name: 'late', value: 1 });
  const request = `POST /api/items HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

  const sockets = Array.from({ length: 50 }, () => connect(Number(new URL(embedded.url).port), '127.0.0.1'));
  const answers = sockets.map(async (socket) => {
    await once(socket, 'connect');
    socket.write(request);
    return text(socket);
  });
  // the connects start at the next tick; the kernel then completes them while this process is busy
  await new Promise((resolve) => process.nextTick(resolve));
  const busyUntil = performance.now() + 100;
  while (performance.now() < busyUntil);
  const stopped = embedded.stop();

  for (const answer of await Promise.all(answers)) expect(answer).toMatch(/^HTTP\/1.1 201 /);
  await stopped;
});
