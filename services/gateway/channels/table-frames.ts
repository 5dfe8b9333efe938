/**
 * Makes plain mode's WebSocket text frames of a batch. All frames of a channel are built once, in
 * one Buffer, for all of its clients. A row's image is copied as Postgres rendered it; nothing is
 * parsed.
 */
import { actions, type Batch, BatchReader, isPartial } from '#shared/log/batch.ts';
import type { RowAction } from '#shared/wire.ts';
import { webSocketHeadBytes, writeWebSocketHead } from './framing.ts';
import type { Frames } from './ring.ts';

const actionNames: Readonly<Record<number, RowAction>> = {
  [actions.insert]: 'INSERT',
  [actions.update]: 'UPDATE',
  [actions.delete]: 'DELETE',
  [actions.truncate]: 'TRUNCATE',
};

const noFrames: Frames = { buffer: Buffer.alloc(0), count: 0 };

const data = Buffer.from(',"data":');
const nothing = Buffer.from('null');
const end = Buffer.from('"}');
const truncatedEnd = Buffer.from('","truncated":true}');

/** The beginnings of frames, which name table and action. Every change needs one, so each is made once and kept. */
export class FrameHeads {
  readonly #heads = new Map<number, Buffer>();
  readonly #nameOf: (relation: number) => string | undefined;

  constructor(nameOf: (relation: number) => string | undefined) {
    this.#nameOf = nameOf;
  }

  /** The start of a frame's text; undefined: clients get no frame of such a change. */
  of(relation: number, action: number): Buffer | undefined {
    const id = relation * 256 + action;
    let head = this.#heads.get(id);
    if (head === undefined) {
      const table = this.#nameOf(relation);
      const name = actionNames[action];
      if (table === undefined || name === undefined) return undefined;
      head = Buffer.from(`{"table":${JSON.stringify(table)},"action":"${name}","id":`);
      this.#heads.set(id, head);
    }
    return head;
  }

  /** Called after tables were attached, renamed or detached. */
  forget(): void {
    this.#heads.clear();
  }
}

/** The frames of the batch's changes with a seq above `after` in the tables that `wants` admits. */
export function buildFrames(batch: Batch, heads: FrameHeads, wants: (relation: number) => boolean, after = 0): Frames {
  const position = Buffer.from(`,"pos":"e${batch.epoch}.`);
  let size = 0;
  let count = 0;
  const sizing = new BatchReader(batch);
  while (sizing.next()) {
    if (sizing.seq <= after || !wants(sizing.relation)) continue;
    const head = heads.of(sizing.relation, sizing.action);
    if (!head) continue;
    const length = textLength(sizing, head, position);
    size += webSocketHeadBytes(length) + length;
    count++;
  }
  if (count === 0) return noFrames;

  const buffer = Buffer.allocUnsafeSlow(size);
  const reader = new BatchReader(batch);
  let at = 0;
  while (reader.next()) {
    if (reader.seq <= after || !wants(reader.relation)) continue;
    const head = heads.of(reader.relation, reader.action);
    if (!head) continue;
    at = writeWebSocketHead(buffer, at, textLength(reader, head, position));
    at += head.copy(buffer, at);
    at += copyText(reader.buffer, reader.keyStart, reader.keyEnd, buffer, at);
    at += data.copy(buffer, at);
    const { buffer: from } = reader;
    const isOld = reader.action === actions.delete;
    const start = isOld ? reader.oldStart : reader.newStart;
    const stop = isOld ? reader.oldEnd : reader.newEnd;
    const truncated = stop > start && isPartial(from, start);
    at += truncated ? nothing.copy(buffer, at) : copyText(from, start, stop, buffer, at);
    at += position.copy(buffer, at);
    at += buffer.write(String(reader.seq), at, 'latin1');
    at += (truncated ? truncatedEnd : end).copy(buffer, at);
  }
  return { buffer, count };
}

function textLength(reader: BatchReader, head: Buffer, position: Buffer): number {
  const key = reader.keyEnd < reader.keyStart ? nothing.length : reader.keyEnd - reader.keyStart;
  const isOld = reader.action === actions.delete;
  const image = isOld ? reader.oldEnd - reader.oldStart : reader.newEnd - reader.newStart;
  const truncated = image > 0 && isPartial(reader.buffer, isOld ? reader.oldStart : reader.newStart);
  return (
    head.length +
    key +
    data.length +
    (image < 0 || truncated ? nothing.length : image) +
    position.length +
    digits(reader.seq) +
    (truncated ? truncatedEnd : end).length
  );
}

function copyText(from: Buffer, start: number, stop: number, to: Buffer, at: number): number {
  return stop < start ? nothing.copy(to, at) : from.copy(to, at, start, stop);
}

function digits(n: number): number {
  let count = 1;
  for (let limit = 10; n >= limit; limit *= 10) count++;
  return count;
}
