// Requests to the gateway, and JSON without rounded integers.

const timeoutMs = 30_000;

/** A reviver for JSON.parse. It makes bigints of integers beyond 2^53, as the SDK does. */
function keepIntegers(_name, value, context) {
  const isRounded = Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source);
  return isRounded ? BigInt(context.source) : value;
}

/** A replacer for JSON.stringify. It writes a bigint with all its digits. */
function digits(_name, value) {
  if (typeof value !== 'bigint') return value;
  return JSON.rawJSON ? JSON.rawJSON(String(value)) : String(value);
}

export const jsonText = (value) => JSON.stringify(value, digits);

/** The text of a column's value: a string stays as it is, any other value becomes JSON. */
export const valueText = (value) => (typeof value === 'string' ? value : jsonText(value ?? null));

/** The primary key of a change as people read it: "7", or "a, 7" for a key of two columns. */
export function keyText(id) {
  return id !== null && typeof id === 'object' ? Object.values(id).join(', ') : String(id ?? '');
}

/**
 * Sends a request. `body` is JSON text. Returns { answer }, or { problem, status, fields: { column: message } }.
 * Never throws.
 */
export async function ask(path, { method = 'GET', headers = {}, body } = {}) {
  try {
    const response = await fetch(path, {
      method,
      headers: body === undefined ? headers : { ...headers, 'Content-Type': 'application/json' },
      body,
      signal: AbortSignal.timeout(timeoutMs),
    });
    const answer = response.status === 204 ? {} : JSON.parse(await response.text(), keepIntegers);
    if (response.ok) return { answer };
    const fields = Object.fromEntries((answer.errors ?? []).map(({ path, message }) => [path, message]));
    return { problem: answer.detail ?? answer.title, status: response.status, fields };
  } catch {
    return { problem: 'The gateway did not answer. Try again in a moment.' };
  }
}
