/** Canonical JSON, with sorted keys: two values are the same if their canonical JSON is equal. Pure. */

/** Writes a bigint as its digits, and a Date as in JSON. Leaves out members that are `undefined`. */
export function canonical(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Date) return canonical(value.toJSON());
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? typeof value;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(',')}}`;
}
