/**
 * A batch is a number of consecutive changes, packed into one Buffer. Changes travel in batches from the listener
 * through Redis to the gateways. A batch is made once, from the texts that Postgres rendered. No process on its way
 * parses it as JSON.
 *
 *   header, 24 bytes, little-endian
 *     version u8 · flags u8 (1: it contains a canary) · count u16 · epoch u32 · firstSeq f64 ·
 *     drainedAt f64 (ms since 1970; 0: not known)
 *   each change, 33 bytes and three texts, big-endian as Postgres sends numbers (plank.pack in sql/009_drain.sql)
 *     relation u32 · action u8 (+ 128: the last change of its transaction) · xid u64 · at f64 (ms since 1970) ·
 *     the lengths of key, new and old, i32 each (-1: null) · the three texts as UTF-8
 *
 * If an image begins with a space, it is partial: the image of the whole row would exceed the size bound, so the large
 * columns are left out (sql/000_bound.sql).
 */

/** One change as plank.read_log returns it, in array row mode. Texts are JSON. */
export type ChangeRow = [
  seq: string,
  xid: string,
  atMs: string,
  relation: string,
  action: string,
  key: string | null,
  newImage: string | null,
  oldImage: string | null,
  /** 't' if the change is the last one of its transaction */
  last: string,
];

/** The select list that yields ChangeRows from plank.read_log. */
export const changeColumns = "seq, xid, date_part('epoch', at) * 1000 as at_ms, relation, action, key, new, old, last";

/** the actions of plank.outbox: the character codes of I U D T S R A V C */
export const actions = {
  insert: 73,
  update: 85,
  delete: 68,
  truncate: 84,
  shape: 83,
  rows: 82,
  access: 65,
  revoke: 86,
  canary: 67,
} as const;

const version = 3;
const canaryFlag = 1;
const lastOfTransaction = 128;
const headerBytes = 24;
const changeBytes = 33;
/** when a batch has reached this size, it gets no further change */
const targetBytes = 256 * 1024;
const maxCount = 5_000;

export interface Batch {
  readonly epoch: number;
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly buffer: Buffer;
}

/**
 * Packs consecutive rows into batches of about 256 kB. `drainedAtMs` is in ms since 1970, or 0 for rows
 * that were read from the log.
 */
export function packBatches(epoch: number, rows: readonly ChangeRow[], drainedAtMs = 0): Batch[] {
  const batches: Batch[] = [];
  let from = 0;
  let size = headerBytes;
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    size += changeBytes + textBytes(row[5]) + textBytes(row[6]) + textBytes(row[7]);
    if (size >= targetBytes || i - from + 1 === maxCount || i === rows.length - 1) {
      batches.push(pack({ epoch, drainedAtMs }, rows, from, i + 1, size));
      from = i + 1;
      size = headerBytes;
    }
  }
  return batches;
}

function textBytes(text: string | null): number {
  return text === null ? 0 : Buffer.byteLength(text);
}

function pack(
  { epoch, drainedAtMs }: { epoch: number; drainedAtMs: number },
  rows: readonly ChangeRow[],
  from: number,
  to: number,
  size: number,
): Batch {
  const buffer = Buffer.allocUnsafeSlow(size);
  const firstSeq = Number(rows[from]![0]);
  let at = headerBytes;
  let flags = 0;
  for (let i = from; i < to; i++) {
    const row = rows[i]!;
    if (Number(row[0]) !== firstSeq + i - from)
      throw new Error(`seq ${row[0]} where ${firstSeq + i - from} was expected`);
    const action = row[4].charCodeAt(0);
    if (action === actions.canary) flags |= canaryFlag;
    buffer.writeUInt32BE(Number(row[3]), at);
    buffer.writeUInt8(action | (row[8] === 't' ? lastOfTransaction : 0), at + 4);
    buffer.writeBigUInt64BE(BigInt(row[1]), at + 5);
    buffer.writeDoubleBE(Number(row[2]), at + 13);
    let end = at + changeBytes;
    for (let field = 0; field < 3; field++) {
      const text = row[5 + field] as string | null;
      const length = text === null ? -1 : buffer.write(text, end, 'utf8');
      buffer.writeInt32BE(length, at + 21 + 4 * field);
      if (length > 0) end += length;
    }
    at = end;
  }
  writeHeader(buffer, { flags, count: to - from, epoch, firstSeq, drainedAtMs });
  return { epoch, firstSeq, lastSeq: firstSeq + to - from - 1, buffer };
}

/**
 * Makes batches of the changes in `packed`, as plank.drain returns them: room for a header, then consecutive changes.
 * If all changes fit into one batch, the header is written into `packed`, and `packed` becomes the batch without a
 * copy.
 */
export function batchesOf(epoch: number, firstSeq: number, packed: Buffer, drainedAtMs: number): Batch[] {
  const batches: Batch[] = [];
  let seq = firstSeq;
  for (let from = headerBytes; from < packed.length; ) {
    let flags = 0;
    let count = 0;
    let at = from;
    while (at < packed.length && at - from < targetBytes && count < maxCount) {
      if ((packed[at + 4]! & ~lastOfTransaction) === actions.canary) flags |= canaryFlag;
      let end = at + changeBytes;
      for (let field = 0; field < 3; field++) end += Math.max(0, packed.readInt32BE(at + 21 + 4 * field));
      at = end;
      count++;
    }
    const isAll = from === headerBytes && at === packed.length;
    const buffer = isAll ? packed : Buffer.allocUnsafeSlow(headerBytes + at - from);
    if (!isAll) packed.copy(buffer, headerBytes, from, at);
    writeHeader(buffer, { flags, count, epoch, firstSeq: seq, drainedAtMs });
    batches.push({ epoch, firstSeq: seq, lastSeq: seq + count - 1, buffer });
    seq += count;
    from = at;
  }
  return batches;
}

function writeHeader(
  buffer: Buffer,
  header: { flags: number; count: number; epoch: number; firstSeq: number; drainedAtMs: number },
): void {
  buffer.writeUInt8(version, 0);
  buffer.writeUInt8(header.flags, 1);
  buffer.writeUInt16LE(header.count, 2);
  buffer.writeUInt32LE(header.epoch, 4);
  buffer.writeDoubleLE(header.firstSeq, 8);
  buffer.writeDoubleLE(header.drainedAtMs, 16);
}

/**
 * Returns the same batch in a buffer of the batch's own size. If the batch were a view of a larger buffer (of a
 * socket's data, or of Node's buffer pool), it would keep the whole larger buffer in memory.
 */
export function withOwnBuffer(batch: Batch): Batch {
  const { buffer } = batch;
  if (buffer.buffer.byteLength - buffer.length <= buffer.length / 16) return batch;
  const own = Buffer.allocUnsafeSlow(buffer.length);
  buffer.copy(own);
  return { ...batch, buffer: own };
}

/** Reads a batch's header. Throws if the bytes are not a batch of this version. */
export function openBatch(buffer: Buffer): Batch {
  if (buffer.length < headerBytes || buffer.readUInt8(0) !== version) throw new Error('not a batch of this version');
  const firstSeq = buffer.readDoubleLE(8);
  return { epoch: buffer.readUInt32LE(4), firstSeq, lastSeq: firstSeq + buffer.readUInt16LE(2) - 1, buffer };
}

/**
 * The time when the batch was drained, in ms since 1970 by the listener's clock. 0: this time is missing, because the
 * batch was read from the log.
 */
export function drainedAtOf({ buffer }: Batch): number {
  return buffer.readDoubleLE(16);
}

/** A marker that the leader commits at an interval, so that a gateway notices if changes do not arrive. */
export interface Canary {
  /** when the canary was captured, by the clock of Postgres, in ms since 1970 */
  atMs: number;
  /** the time until the next canary, in ms */
  everyMs: number;
}

/** The canaries in a batch. A flag in the header says whether there are any; if not, the changes are not read. */
export function canariesOf(batch: Batch): Canary[] {
  const canaries: Canary[] = [];
  if ((batch.buffer.readUInt8(1) & canaryFlag) === 0) return canaries;
  const reader = new BatchReader(batch);
  while (reader.next()) {
    if (reader.action !== actions.canary) continue;
    const { every_ms: everyMs } = JSON.parse(reader.buffer.toString('utf8', reader.newStart, reader.newEnd));
    canaries.push({ atMs: reader.atMs, everyMs });
  }
  return canaries;
}

/**
 * Whether later changes reach clients in another way than earlier ones: the shape of the table changed, its rows
 * changed without INSERT, UPDATE or DELETE, its policies changed, or a user or a token was revoked.
 */
export function isBreak(action: number): boolean {
  return action === actions.shape || action === actions.rows || action === actions.access || action === actions.revoke;
}

const space = 0x20;

/** Whether the image that begins at `at` is partial. */
export function isPartial(image: Uint8Array, at = 0): boolean {
  return image[at] === space;
}

/** Splits a batch so that each break (see `isBreak`) is a batch by itself. Returns a batch without breaks unchanged. */
export function splitAtBreaks(batch: Batch): Batch[] {
  let isAfterBreak = true;
  return split(batch, ({ action }) => {
    const isHere = isBreak(action);
    const isStart = isHere || isAfterBreak;
    isAfterBreak = isHere;
    return isStart;
  });
}

/** Splits a batch so that each of these seqs begins a batch. */
export function splitBefore(batch: Batch, seqs: readonly number[]): Batch[] {
  const starts = new Set(seqs).add(batch.firstSeq);
  return split(batch, ({ seq }) => starts.has(seq));
}

/** Splits a batch before each change for which `isStart` holds, which must hold for the first one. */
function split(batch: Batch, isStart: (change: BatchReader) => boolean): Batch[] {
  const reader = new BatchReader(batch);
  /** the start of each part: its first seq, and its first byte */
  const starts: { seq: number; at: number }[] = [];
  while (reader.next()) if (isStart(reader)) starts.push({ seq: reader.seq, at: reader.keyStart - changeBytes });
  if (starts.length === 1) return [batch];
  return starts.map(({ seq, at }, i) => {
    const next = starts[i + 1] ?? { seq: batch.lastSeq + 1, at: batch.buffer.length };
    const header = Buffer.from(batch.buffer.subarray(0, headerBytes));
    header.writeUInt16LE(next.seq - seq, 2);
    header.writeDoubleLE(seq, 8);
    const buffer = Buffer.concat([header, batch.buffer.subarray(at, next.at)]);
    return withOwnBuffer({ epoch: batch.epoch, firstSeq: seq, lastSeq: next.seq - 1, buffer });
  });
}

/** The three texts of a change; null: the change has no such text. */
export interface Texts {
  key: Buffer | null;
  new: Buffer | null;
  old: Buffer | null;
}

/**
 * Returns a copy of the batch in which changes have the texts that `map` returns for them. If `map` returns null for a
 * change, the change stays as it is. If `map` returns null for all changes, returns the batch itself.
 */
export function mapTexts(batch: Batch, map: (change: BatchReader) => Texts | null): Batch {
  const parts: Buffer[] = [];
  /** where the bytes begin that have not been copied yet */
  let from = 0;
  const reader = new BatchReader(batch);
  while (reader.next()) {
    const texts = map(reader);
    if (!texts) continue;
    const fields = [texts.key, texts.new, texts.old];
    const lengths = Buffer.alloc(12);
    fields.forEach((text, i) => lengths.writeInt32BE(text ? text.length : -1, 4 * i));
    parts.push(batch.buffer.subarray(from, reader.keyStart - 12), lengths, ...fields.filter((text) => text !== null));
    from = reader.end;
  }
  if (from === 0) return batch;
  parts.push(batch.buffer.subarray(from));
  // The buffer is not from Node's buffer pool, because the batch would keep the whole pool in memory.
  const buffer = Buffer.allocUnsafeSlow(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) at += part.copy(buffer, at);
  return { epoch: batch.epoch, firstSeq: batch.firstSeq, lastSeq: batch.lastSeq, buffer };
}

/**
 * Reads the changes of a batch one after the other without allocating memory. `next` moves to the next change, and the
 * fields then belong to this change. A text is a range of `buffer`; if its end is before its start, the text is null.
 */
export class BatchReader {
  readonly buffer: Buffer;
  seq: number;
  relation = 0;
  action = 0;
  /** whether the change is the last one of its transaction */
  last = false;
  atMs = 0;
  keyStart = 0;
  keyEnd = 0;
  newStart = 0;
  newEnd = 0;
  oldStart = 0;
  oldEnd = 0;
  readonly #lastSeq: number;
  #at = headerBytes;

  constructor(batch: Batch) {
    this.buffer = batch.buffer;
    this.seq = batch.firstSeq - 1;
    this.#lastSeq = batch.lastSeq;
  }

  next(): boolean {
    if (this.seq >= this.#lastSeq) return false;
    const { buffer } = this;
    const at = this.#at;
    this.seq++;
    this.relation = buffer.readUInt32BE(at);
    this.action = buffer[at + 4]! & ~lastOfTransaction;
    this.last = (buffer[at + 4]! & lastOfTransaction) !== 0;
    this.atMs = buffer.readDoubleBE(at + 13);
    this.keyStart = at + changeBytes;
    this.keyEnd = this.keyStart + buffer.readInt32BE(at + 21);
    this.newStart = Math.max(this.keyStart, this.keyEnd);
    this.newEnd = this.newStart + buffer.readInt32BE(at + 25);
    this.oldStart = Math.max(this.newStart, this.newEnd);
    this.oldEnd = this.oldStart + buffer.readInt32BE(at + 29);
    this.#at = Math.max(this.oldStart, this.oldEnd);
    return true;
  }

  /** where the bytes of the current change end */
  get end(): number {
    return this.#at;
  }

  /** the id of the current change's top-level transaction, as decimal text */
  get xid(): string {
    return this.buffer.readBigUInt64BE(this.keyStart - changeBytes + 5).toString();
  }
}
