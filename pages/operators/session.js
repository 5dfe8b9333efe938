// Access to the gateway. If the gateway requires a token, the page exchanges the token for a cookie that scripts cannot
// read, so the page keeps no secret. The browser sends the cookie also with event streams and WebSockets.

import { byId, setText } from '../common/dom.js';
import { ask } from '../common/request.js';

/** Resolves when the gateway admits this page: at once, or after the user has entered the token. */
export async function admitted() {
  for (;;) {
    const { status, problem } = await ask('ops/status');
    if (!problem) return show(true);
    if (status === 401) return enter();
    // The gateway did not answer, or it refused the address that the browser used.
    show(true);
    setText(byId('status-text'), problem);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
  }
}

/** Whether the session is over: the gateway requires the token again. */
export async function isOver() {
  return (await ask('ops/status')).status === 401;
}

function enter() {
  show(false);
  const form = byId('entry');
  const { token } = form.elements;
  token.focus();
  return new Promise((resolve) => {
    form.addEventListener('submit', async function submit(event) {
      event.preventDefault();
      const { problem, status } = await ask('ops/session', {
        method: 'POST',
        headers: { Authorization: `Bearer ${token.value.trim()}` },
      });
      setText(byId('token-error'), status === 401 ? 'This is not the token.' : (problem ?? ''));
      token.setAttribute('aria-invalid', String(Boolean(problem)));
      if (problem) return token.select();
      form.removeEventListener('submit', submit);
      form.reset();
      show(true);
      resolve();
    });
  });
}

function show(isIn) {
  byId('entry').hidden = isIn;
  byId('board').hidden = !isIn;
}
