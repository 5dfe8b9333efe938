/** The query parameters of /ws in each mode. An unknown parameter is refused by its name, as in REST. */

const plainParameters = ['tables', 'since'];
/** a ticket may stand for a token in both modes */
const ticket = 'ticket';

/** What is wrong with the parameters of a URL; null: nothing is wrong. */
export function wrongParameter(url: URL, isPlain: boolean): string | null {
  const known = isPlain ? [...plainParameters, ticket] : [ticket];
  const seen = new Set<string>();
  for (const name of url.searchParams.keys()) {
    if (!known.includes(name)) return `${name.slice(0, 40)}: ${reason(name, isPlain)}`;
    if (seen.has(name)) return `${name}: is there more than once`;
    seen.add(name);
  }
  return null;
}

function reason(name: string, isPlain: boolean): string {
  if (!isPlain) return 'is no parameter of /ws in plank.v1: a subscribe message says what is wanted';
  const similar = plainParameters.find((known) => isSimilar(known, name.toLowerCase()));
  const there = plainParameters.join(' and ');
  return similar ? `is no parameter of /ws; did you mean ${similar}?` : `is no parameter of /ws: there are ${there}`;
}

/** Whether the first four letters are equal: `table`, `tables[]` and `tablenames` are similar to `tables`. */
const isSimilar = (known: string, name: string): boolean => name.startsWith(known.slice(0, 4));
