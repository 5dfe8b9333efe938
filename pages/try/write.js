// Writes through REST: the page shows their effect when the change arrives, as any other window
// does.

import { ask } from '../common/request.js';

/** `place`: the address after `api/`. `values`: JSON texts by column, so that no digit is lost. */
export function write(method, place, values) {
  const members = Object.entries(values ?? {}).map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  return ask(`api/${place}`, { method, ...(values ? { body: `{${members.join(',')}}` } : {}) });
}
