// Plain mode's frames: a WebSocket client reads from them, byte for byte, what was captured.

import type { Writable } from 'node:stream';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as ws from 'ws';
import { buildFrames, FrameHeads } from '#gateway/channels/table-frames.ts';
import { type ChangeRow, packBatches } from '#shared/log/batch.ts';

// the types of ws omit Receiver
const { Receiver } = ws as unknown as {
  Receiver: new (options: { isServer: boolean; allowSynchronousEvents: boolean }) => Writable;
};

const tables: Record<number, string> = { 1: 'items', 2: 'sales."odd"', 3: 'naïve ünïcode' };
const heads = () => new FrameHeads((relation) => tables[relation]);
const all = () => true;

/** The texts of a buffer of frames, as a client of the library `ws` gets them. */
async function texts(buffer: Buffer): Promise<string[]> {
  const receiver = new Receiver({ isServer: false, allowSynchronousEvents: true });
  const found: string[] = [];
  receiver.on('message', (data: Buffer, isBinary: boolean) => found.push(isBinary ? 'binary' : data.toString()));
  await new Promise<void>((resolve, reject) => {
    receiver.on('error', reject);
    receiver.write(buffer, () => resolve());
  });
  await new Promise<void>((resolve) => {
    receiver.end(resolve);
  });
  return found;
}

function row(
  seq: number,
  action: string,
  more: Partial<Record<'key' | 'new' | 'old' | 'relation', string | null>> = {},
): ChangeRow {
  const { key = '1', relation = '1' } = more;
  return [String(seq), '7', '0', relation!, action, key, more.new ?? null, more.old ?? null, 't'];
}

const batch = (...rows: ChangeRow[]) => packBatches(5, rows)[0]!;

describe('buildFrames', () => {
  test('a frame is the message that PROTOCOL.md shows, for each action', async () => {
    const { buffer, count } = buildFrames(
      batch(
        row(8, 'I', { new: '{"id":1,"name":"a"}' }),
        row(9, 'U', { old: '{"id":1,"name":"a"}', new: '{"id":1,"name":"b"}' }),
        row(10, 'D', { old: '{"id":1,"name":"b"}' }),
        row(11, 'T', { key: null }),
        row(12, 'I', { key: '{"a":1,"b":"x"}', new: '{"a":1,"b":"x"}', relation: '2' }),
      ),
      heads(),
      all,
    );
    expect(count).toBe(5);
    expect(await texts(buffer)).toEqual([
      '{"table":"items","action":"INSERT","id":1,"data":{"id":1,"name":"a"},"pos":"e5.8"}',
      '{"table":"items","action":"UPDATE","id":1,"data":{"id":1,"name":"b"},"pos":"e5.9"}',
      '{"table":"items","action":"DELETE","id":1,"data":{"id":1,"name":"b"},"pos":"e5.10"}',
      '{"table":"items","action":"TRUNCATE","id":null,"data":null,"pos":"e5.11"}',
      '{"table":"sales.\\"odd\\"","action":"INSERT","id":{"a":1,"b":"x"},"data":{"a":1,"b":"x"},"pos":"e5.12"}',
    ]);
  });

  test('the header of a frame is right on both sides of each of its sizes', async () => {
    const rest = '{"table":"items","action":"INSERT","id":1,"data":"","pos":"e5.1"}'.length;
    for (const size of [125, 126, 127, 65_535, 65_536, 65_537, 200_000]) {
      const { buffer } = buildFrames(batch(row(1, 'I', { new: `"${'x'.repeat(size - rest)}"` })), heads(), all);
      expect(buffer.length).toBe(size + (size < 126 ? 2 : size < 65_536 ? 4 : 10));
      const [text, ...more] = await texts(buffer);
      expect(more).toEqual([]);
      expect(text).toHaveLength(size);
      expect(JSON.parse(text!)).toMatchObject({ pos: 'e5.1' });
    }
  });

  test('frames leave out changes before the position, other tables, and changes that clients do not know', async () => {
    const rows = [
      row(1, 'I', { new: '1' }),
      row(2, 'I', { new: '2', relation: '2' }),
      row(3, 'S', { key: null }),
      row(4, 'I', { new: '4', relation: '99' }),
      row(5, 'I', { new: '5', relation: '3' }),
      row(6, 'U', { new: '6', old: '5' }),
    ];
    const seqs = async (...args: Parameters<typeof buildFrames> extends [unknown, unknown, ...infer R] ? R : never) => {
      const { buffer, count } = buildFrames(batch(...rows), heads(), ...args);
      const found = (await texts(buffer)).map((text) => Number(JSON.parse(text).pos.slice(3)));
      expect(count).toBe(found.length);
      return found;
    };
    expect(await seqs(all)).toEqual([1, 2, 5, 6]);
    expect(await seqs(all, 1)).toEqual([2, 5, 6]);
    expect(await seqs(all, 5)).toEqual([6]);
    expect(await seqs(all, 6)).toEqual([]);
    expect(await seqs((relation) => relation === 2)).toEqual([2]);
    expect(await seqs((relation) => relation === 99)).toEqual([]);
  });

  test("a frame has a table's new name once the cached heads are purged", async () => {
    const names = { ...tables };
    const own = new FrameHeads((relation) => names[relation]);
    const insert = batch(row(1, 'I', { new: '1' }));
    const name = async () => JSON.parse((await texts(buildFrames(insert, own, all).buffer))[0]!).table as string;
    expect(await name()).toBe('items');
    names[1] = 'things';
    own.forget();
    expect(await name()).toBe('things');
  });

  test('a frame carries any JSON unchanged', async () => {
    const json = fc.oneof(
      fc.json(),
      fc.string({ unit: 'grapheme' }).map((text) => JSON.stringify(text)),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.tuple(fc.constantFrom('I', 'U', 'D', 'T', 'S', 'C'), fc.integer({ min: 0, max: 4 }), json, json, json),
          {
            minLength: 1,
            maxLength: 12,
          },
        ),
        fc.integer({ min: 1, max: 999_999_999_999_000 }),
        fc.integer({ min: 0, max: 12 }),
        async (changes, first, skip) => {
          const rows = changes.map(([action, relation, key, image, old], i) =>
            row(first + i, action, { relation: String(relation), key, new: action === 'D' ? null : image, old }),
          );
          const { buffer } = buildFrames(batch(...rows), heads(), all, first - 1 + skip);
          const names: Record<string, string> = { I: 'INSERT', U: 'UPDATE', D: 'DELETE', T: 'TRUNCATE' };
          const expected = changes.flatMap(([action, relation, key, image, old], i) => {
            const table = tables[relation];
            if (i < skip || action === 'S' || action === 'C' || table === undefined) return [];
            return `{"table":${JSON.stringify(table)},"action":"${names[action]}","id":${key},"data":${action === 'D' ? old : image},"pos":"e5.${first + i}"}`;
          });
          expect(await texts(buffer)).toEqual(expected);
        },
      ),
    );
  });
});
