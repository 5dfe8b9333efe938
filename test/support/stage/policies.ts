// SQL that sets policies, and calls of REST by users of AUTH=jwt.

import { type Stage } from './stage.ts';
import { tokenOf } from './tokens.ts';

export interface Policy {
  read?: object;
  insert?: object;
  update?: object;
  delete?: object;
  check?: object;
  reads?: string[];
  writes?: string[];
  presets?: object;
}

const json = (value: unknown) => (value === undefined ? 'null' : `'${JSON.stringify(value).replaceAll("'", "''")}'`);
const list = (names?: string[]) => (names === undefined ? 'null' : `array['${names.join("', '")}']`);

/** A filter: the row is the user's own. */
export const own = { owner: { $claim: 'sub' } };

/** SQL of plank.allow. */
export const allow = (table: string, policy: Policy, role = 'authenticated') =>
  `select plank.allow('${table}', '${role}', read => ${json(policy.read)}, insert => ${json(policy.insert)},
     update => ${json(policy.update)}, "delete" => ${json(policy.delete)}, "check" => ${json(policy.check)},
     read_columns => ${list(policy.reads)}, write_columns => ${list(policy.writes)},
     presets => ${json(policy.presets)});`;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** the parsed text; null: there is none */
  body: ReturnType<typeof JSON.parse>;
}

export type Call = (
  who: string,
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Answer>;

/** Calls REST as `who`: a user's name, `anonymous`, or a token. `url`: of another gateway than the stage's own. */
export function callsOf(stage: Stage, url?: () => string): Call {
  const tokens: Record<string, string> = { anonymous: '' };
  const tokenFor = (who: string) => (who.includes('.') ? who : (tokens[who] ??= tokenOf({ sub: who })));
  return async (who, method, path, body, headers = {}) => {
    const token = tokenFor(who);
    const response = await fetch(`${url?.() ?? stage.embedded.url}${path}`, {
      method,
      headers: {
        ...(token !== '' && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, body: text === '' ? null : JSON.parse(text) };
  };
}
