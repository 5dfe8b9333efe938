// Whether this browser is let in. Where the gateway asks for a token, it is exchanged for a cookie that scripts cannot read: the
// page keeps no secret, and its WebSockets bring it by themselves.

import { byId } from '../dom.js';
import { ask, setText } from './parts.js';

/** Resolves when the gateway lets this page in: at once, or when the token was given. */
export async function admitted() {
  for (;;) {
    const { status, problem } = await ask('ops/status');
    if (!problem) return show(true);
    if (status === 401) return enter();
    // not answered, or not to this name of the port
    show(true);
    setText(byId('status-text'), problem);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
  }
}

/** Whether a session that was there is over. */
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
