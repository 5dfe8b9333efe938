// The load generator for where there is no C compiler: does what receiver.c does (its header says what), at a higher price.

import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const maxHandshakes = 128;
const least = Number(process.argv[2] ?? 1);
const noMask = Buffer.alloc(4);

const counts = { ready: 0, ended: 0, changes: 0, bytes: 0 };
const waiting: string[] = [];
let handshakes = 0;

function open(words: readonly string[]): void {
  const [port = '', greetings = '', path = '', protocol = '-', ...messages] = words;
  const socket = connect({ port: Number(port), host: '127.0.0.1', noDelay: true });
  handshakes++;
  const lines = [`GET ${path} HTTP/1.1`, `Host: 127.0.0.1:${port}`, 'Upgrade: websocket', 'Connection: Upgrade'];
  lines.push('Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13');
  if (protocol !== '-') lines.push(`Sec-WebSocket-Protocol: ${protocol}`);
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  let answer = Buffer.alloc(0);
  const head = Buffer.alloc(10);
  let have = 0;
  let left = 0;
  let awaited = Number(greetings);

  const frames = (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const step = Math.min(left, chunk.length - at);
        left -= step;
        at += step;
        continue;
      }
      head[have++] = chunk[at++]!;
      const length = head[1]! & 127;
      const need = have < 2 ? 2 : length < 126 ? 2 : length === 126 ? 4 : 10;
      if (have < need) continue;
      left = need === 2 ? length : need === 4 ? head.readUInt16BE(2) : Number(head.readBigUInt64BE(2));
      have = 0;
      if ((head[0]! & 15) !== 1) continue;
      if (left >= least) {
        counts.changes++;
        counts.bytes += left;
      } else if (awaited > 0 && --awaited === 0) counts.ready++;
    }
  };
  const answered = (chunk: Buffer) => {
    answer = Buffer.concat([answer, chunk]);
    const end = answer.indexOf('\r\n\r\n');
    if (end < 0) return;
    if (answer[9] !== 0x31) throw new Error(`an upgrade was refused: ${answer.toString('latin1', 0, 200)}`);
    handshakes--;
    if (awaited === 0) counts.ready++;
    socket.off('data', answered).on('data', frames);
    for (const message of messages) socket.write(masked(message));
    frames(answer.subarray(end + 4));
    openWaiting();
  };
  socket.on('data', answered);
  socket.on('error', () => {});
  socket.on('close', () => counts.ended++);
}

/** A mask of zeros leaves the text as it is. */
function masked(text: string): Buffer {
  const payload = Buffer.from(text);
  const head =
    payload.length < 126
      ? Buffer.from([0x81, 0x80 | payload.length])
      : Buffer.from([0x81, 0x80 | 126, payload.length >> 8, payload.length & 255]);
  return Buffer.concat([head, noMask, payload]);
}

function openWaiting(): void {
  while (handshakes < maxHandshakes && waiting.length > 0) open(waiting.shift()!.split('\t'));
}

function obey(line: string): void {
  if (line.startsWith('open ')) {
    waiting.push(line.slice(5));
    openWaiting();
  } else if (line === 'count') {
    const { ready, ended, changes, bytes } = counts;
    process.stdout.write(`count ${ready} ${ended} ${changes} ${bytes}\n`);
  } else throw new Error(line);
}

createInterface({ input: process.stdin })
  .on('line', obey)
  .on('close', () => process.exit());
