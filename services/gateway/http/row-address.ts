/**
 * How URLs name tables and rows: /api/<table> and /api/<table>/<key>. What must stay true: the address that is made for a row leads
 * to it, through browsers and proxies; see PROTOCOL.md, "Rows over REST".
 */

/** What a URL may have to be long, by nginx' and Node's bounds for the head of a request. */
export const maxAddress = 7_000;

/** Segments that stand for something else: of a path, for browsers and proxies, and the event stream of a table. */
const taken = /^(|\.|\.\.|changes)$/i;

/** The segment of a URL's path with these texts. */
export function formatSegment(texts: readonly string[]): string {
  const segment = texts.map(encodeURIComponent).join(',');
  return taken.test(segment) ? `=${segment}` : segment;
}

/** The texts that a segment holds: one, or as many as there are commas between them. Throws URIError. */
export function parseSegment(segment: string, isList: boolean): string[] {
  // "=" as it is; one that belongs to the text is encoded
  const text = segment.startsWith('=') ? segment.slice(1) : segment;
  return (isList ? text.split(',') : [text]).map(decodeURIComponent);
}

/** Whether this segment behind a table's is the event stream of the table, however it is written. */
export const isChanges = (segment: string): boolean => /^changes$/i.test(segment);
