/**
 * The text of each member of a request body, exactly as the client sent it. A json column stores blanks,
 * digits and repeated keys as they were sent, but a parsed value has lost them.
 */

const texts = new WeakMap<object, string>();

/** Remembers the text from which a body was parsed. */
export function keepText(body: object, text: string): void {
  texts.set(body, text);
}

/** The text of each member by its name; undefined if `keepText` was not called for this body. */
export function sourcesIn(body: object): Map<string, string> | undefined {
  const text = texts.get(body);
  return text === undefined ? undefined : sourcesOf(text);
}

/**
 * `text` is a JSON object that JSON.parse has accepted. If a member is repeated, its last text counts, as
 * with JSON.parse.
 */
function sourcesOf(text: string): Map<string, string> {
  const sources = new Map<string, string>();
  let name: string | undefined;
  let start = 0;
  let depth = 0;
  const end = (at: number) => {
    if (name !== undefined) sources.set(name, text.slice(start, at).trim());
    name = undefined;
  };
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!;
    if (char === '"') {
      const from = at;
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
      if (depth === 1 && name === undefined) {
        name = JSON.parse(text.slice(from, at + 1)) as string;
        start = text.indexOf(':', at) + 1;
      }
    } else if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') {
      depth--;
      if (depth === 0) end(at);
    } else if (char === ',' && depth === 1) end(at);
  }
  return sources;
}
