// Writes rows through REST. This page shows the effect of a write when the change arrives, like any other window.

import { ask } from '../common/request.js';
import { authorization } from './session.js';

/** Sends a write. `place` is the address after `api/`. `values` has JSON texts by column, so that no digit is lost. */
export function write(method, place, values) {
  const members = Object.entries(values ?? {}).map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  const body = values ? { body: `{${members.join(',')}}` } : {};
  return ask(`api/${place}`, { method, headers: authorization, ...body });
}
