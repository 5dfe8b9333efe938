// The token of this window, and as whom the gateway serves the page. The token is kept in `sessionStorage`: it ends
// with the window, and is never in a URL. With another token the page is loaded again, so that no row of the former
// user stays in it.

import { byId, clockText, setText, showProblem } from '../common/dom.js';

const place = 'plank-token';

/** undefined: the page has no token */
export const token = sessionStorage.getItem(place) ?? undefined;
/** the headers of requests to the gateway */
export const authorization = token === undefined ? {} : { Authorization: `Bearer ${token}` };

export function startSession() {
  const form = byId('session-form');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const given = form.elements.token.value.trim().replace(/^Bearer /, '');
    if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(given)) return use(given);
    showProblem(byId('session-problem'), 'This is not a token. A token is a JWT: three parts with dots between them.');
  });
  byId('sign-out').hidden = token === undefined;
  byId('sign-out').addEventListener('click', () => use(undefined));
  if (token !== undefined) showSession('Token not checked yet');
}

/** Shows as whom the gateway serves the connection. Null: the gateway checks no tokens. */
export function showViewer(viewer) {
  if (viewer === null) byId('session').hidden = true;
  else showSession(viewerText(viewer));
}

/** Called if the gateway has refused the token. */
export function showRefusal(problem) {
  showSession('Token refused');
  showProblem(byId('session-problem'), problem);
  byId('session').open = true;
}

/** Shows the form, because the page may need a token. */
export function offerSession() {
  if (byId('session').hidden) showSession('No token');
}

function viewerText({ user, role, expiresAt }) {
  if (user === null) return `Role ${role}, no token`;
  const expiry = expiresAt === null ? '' : `, until ${clockText(Date.now() + expiresAt - performance.now())}`;
  return `${user}, role ${role}${expiry}`;
}

function showSession(text) {
  byId('session').hidden = false;
  setText(byId('session-title'), text);
}

function use(given) {
  if (given === undefined) sessionStorage.removeItem(place);
  else sessionStorage.setItem(place, given);
  location.reload();
}
