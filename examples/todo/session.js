// The user of this window, the user's token, and writes with this token. Each window has a user of its own, so that two
// windows can show two users. The token stays in memory.

// The server writes the gateway's address into the page. If the page took the address from its URL, a link could
// make it load any script.
export const plankUrl = new URL(document.documentElement.dataset.plank);
export const names = { ada: 'Ada', bob: 'Bob' };
/** null: nobody has signed in */
export const user = Object.hasOwn(names, sessionStorage.getItem('user')) ? sessionStorage.getItem('user') : null;

/** The page is loaded again, so that nothing of the former user stays in it. */
export function signIn(name) {
  sessionStorage.setItem('user', name);
  location.reload();
}

let token;

/** Gets another token. The SDK calls this function before each connection, and before the current token expires. */
export async function renewToken() {
  const response = await fetch(`token/${user}`, { method: 'POST', signal: AbortSignal.timeout(5_000) });
  if (!response.ok) throw new Error(`the server made no token: status ${response.status}`);
  token = await response.text();
  return token;
}

/**
 * Repeats the write until the server has answered. Each of these writes may be repeated: the page chooses the id of a
 * new row, so a repeated POST gets 409 and adds nothing. Returns the problem if the server has refused the write.
 */
export async function write(method, path, body) {
  for (let waitMs = 200; ; waitMs = Math.min(2 * waitMs, 5_000)) {
    const response = await send(method, path, body).catch(() => null);
    if (response && response.status < 500) {
      if (response.ok || response.status === 409 || response.status === 404) return undefined;
      if (response.status !== 401) return (await response.json()).detail ?? `status ${response.status}`;
      token = undefined; // it has expired
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs * (0.5 + Math.random())));
  }
}

async function send(method, path, body) {
  const bearer = token ?? (await renewToken());
  return fetch(new URL(`/api/${path}`, plankUrl), {
    method,
    headers: { Authorization: `Bearer ${bearer}`, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(5_000),
  });
}
