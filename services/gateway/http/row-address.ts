/**
 * How URLs name tables and rows: /api/<table> and /api/<table>/<key>. Invariant: the address that
 * is made for a row leads to that row, through browsers and proxies. See PROTOCOL.md, "Rows over
 * REST".
 */

/** The longest URL, in characters, that fits the bounds of nginx and Node on the head of a request. */
export const maxAddress = 7_000;

/**
 * Segments with a meaning of their own: in paths, to browsers and proxies, and as the event stream
 * of a table.
 */
const reserved = /^(|\.|\.\.|changes)$/i;

/** The path segment that holds these texts. */
export function formatSegment(texts: readonly string[]): string {
  const segment = texts.map(encodeURIComponent).join(',');
  return reserved.test(segment) ? `=${segment}` : segment;
}

/**
 * The texts that a segment holds: one, or with `isList` one for each part between commas. Throws
 * URIError.
 */
export function parseSegment(segment: string, isList: boolean): string[] {
  // an unencoded "=" escapes a reserved segment; formatSegment encodes one that belongs to the text
  const text = segment.startsWith('=') ? segment.slice(1) : segment;
  return (isList ? text.split(',') : [text]).map(decodeURIComponent);
}

/** Whether the segment after a table's name means the event stream, in any case of letters. */
export const isChanges = (segment: string): boolean => /^changes$/i.test(segment);
