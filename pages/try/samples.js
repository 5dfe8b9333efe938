// Rows for the sample table `items`, so that the first look at the page shows something.

import { write } from './write.js';

const samples = [
  ['Tea', 4.5],
  ['Coffee', 3.8],
  ['Bread', 2.2],
  ['Apples', 1.9],
  ['A row without a value', null],
];

export function canHaveSamples(table) {
  const isWritable = (column) => table.columns.some(({ name, isWritable }) => name === column && isWritable);
  return table.name === 'items' && isWritable('name') && isWritable('value');
}

/** Inserts one row after the other, so that users see each row arrive. Resolves with the problem if an insert fails. */
export async function insertSamples(table) {
  for (const [name, value] of samples) {
    const values = { name: JSON.stringify(name), value: JSON.stringify(value) };
    const { problem } = await write('POST', encodeURIComponent(table.name), values);
    if (problem) return problem;
  }
  return undefined;
}
