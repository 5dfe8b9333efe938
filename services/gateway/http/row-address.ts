/**
 * How URLs name tables and rows: /api/<table> and /api/<table>/<key>. Invariant: the address that is made
 * for a row leads to this row, also through browsers and proxies, which change some paths. See PROTOCOL.md,
 * "Rows over REST".
 */

/** The longest URL, in characters, that fits the bounds of nginx and Node on the head of a request. */
export const maxAddress = 7_000;

/**
 * Segments that do not reach Plank as a key. Browsers and proxies give another meaning to an empty
 * segment, `.` and `..`. Plank itself takes `changes` for the event stream of a table.
 */
const reserved = /^(|\.|\.\.|changes)$/i;

/** Makes the path segment that holds these texts, with commas between them. */
export function formatSegment(texts: readonly string[]): string {
  const segment = texts.map(encodeURIComponent).join(',');
  return reserved.test(segment) ? `=${segment}` : segment;
}

/**
 * The texts that a segment holds: with `isList` one for each part between commas, otherwise exactly one.
 * Throws URIError if a part is not percent-encoded correctly.
 */
export function parseSegment(segment: string, isList: boolean): string[] {
  // a "=" at the start escapes a reserved segment. It cannot belong to the text, as formatSegment encodes
  // each "=" of a text.
  const text = segment.startsWith('=') ? segment.slice(1) : segment;
  return (isList ? text.split(',') : [text]).map(decodeURIComponent);
}

/** Whether the segment after a table's name means the event stream. Upper and lower case are equal. */
export const isChanges = (segment: string): boolean => /^changes$/i.test(segment);
