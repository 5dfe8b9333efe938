// The REST side of the table items. Nothing here throws: a failed write is an answer with words to show.

const url = new URL('api/items', document.baseURI);
const timeoutMs = 15_000;

/** Text that is no number is sent as it is: the server says what is wrong with it. */
export function readNumber(text) {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  const number = Number(trimmed);
  return Number.isFinite(number) ? number : trimmed;
}

/** { row } or { problem, status, fields: { name: message } } */
export async function send(method, path, body) {
  try {
    const response = await fetch(url + path, {
      method,
      signal: AbortSignal.timeout(timeoutMs),
      ...(body ? { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } } : {}),
    });
    if (response.status === 204) return {};
    const answer = await response.json();
    if (response.ok) return { row: answer };
    const fields = Object.fromEntries((answer.errors ?? []).map(({ path, message }) => [path, message]));
    return { problem: answer.detail ?? answer.title, status: response.status, fields };
  } catch {
    return { problem: 'The server did not answer. Try again in a moment.' };
  }
}
