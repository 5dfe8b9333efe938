// Writes rows through REST. This page, like any other window, shows the effect of a write when the change arrives.

import { ask } from '../common/request.js';

/** Sends a write. `place`: the address after `api/`. `values`: JSON texts by column, so that no digit is lost. */
export function write(method, place, values) {
  const members = Object.entries(values ?? {}).map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  return ask(`api/${place}`, { method, ...(values ? { body: `{${members.join(',')}}` } : {}) });
}
