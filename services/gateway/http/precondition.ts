/**
 * If-Match and If-None-Match (RFC 9110, 13.1) of a request for one row. A row's entity tag depends only on
 * the bytes of the row's image. So every replica makes the same tag, and Postgres can compare the tag
 * within the statement that writes.
 */
import { createHash } from 'node:crypto';
import type { Request } from 'express';
import { PlankError } from './errors.ts';
import type { Parameters } from './value-sql.ts';

/** the length of a tag: this many hex digits of the row's hash */
const digits = 32;

/** The tags that a header lists, without quotes. `any`: the header is `*`. */
type Tags = 'any' | readonly string[];

export interface Precondition {
  /** the row's tag must be one of these; null: any tag will do … */
  match: Tags | null;
  /** … and must be none of these; null: no tag is excluded */
  noneMatch: Tags | null;
}

const hashOf = (row: string): string => createHash('sha256').update(row).digest('hex').slice(0, digits);

export function entityTag(row: string): string {
  return `"${hashOf(row)}"`;
}

const tag = String.raw`(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"`;
const list = new RegExp(String.raw`^[ \t]*${tag}(?:[ \t]*,[ \t]*${tag})*[ \t]*$`);

/** Throws PlankError MALFORMED if a header is not `*` or a list of tags. */
export function preconditionOf(request: Request): Precondition {
  return {
    // If-Match compares strongly: a weak tag never matches
    match: tagsOf(request, 'If-Match', (weak) => !weak),
    noneMatch: tagsOf(request, 'If-None-Match', () => true),
  };
}

/** Throws MALFORMED if a request for a whole table has If-Match or If-None-Match: only rows have tags. */
export function refusePrecondition(request: Request): void {
  for (const name of ['If-Match', 'If-None-Match'])
    if (request.get(name) !== undefined)
      throw new PlankError('MALFORMED', `${name} needs the address of one row, /api/<table>/<key>`);
}

function tagsOf(request: Request, name: string, counts: (weak: boolean) => boolean): Tags | null {
  const text = request.get(name);
  if (text === undefined) return null;
  if (text.trim() === '*') return 'any';
  if (!list.test(text))
    throw new PlankError('MALFORMED', `${name} must be * or a list of entity tags, each as ETag gave it`);
  return Array.from(text.matchAll(new RegExp(tag, 'g')), ([found]) => found)
    .filter((found) => counts(found.startsWith('W/')))
    .map((found) => found.slice(found.indexOf('"') + 1, -1));
}

/** SQL conditions under which the row meets the precondition. `imageSql` is SQL for the row's image. */
export function conditionSql({ match, noneMatch }: Precondition, imageSql: string, parameters: Parameters): string[] {
  const bytes = `pg_catalog.convert_to((${imageSql})::pg_catalog.text, 'UTF8')`;
  const hash = `pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(${bytes}), 'hex'), ${digits})`;
  const isAmong = (tags: readonly string[]) =>
    `${hash} operator(pg_catalog.=) any (${parameters.add([...tags])}::pg_catalog.text[])`;
  const conditions: string[] = [];
  if (match !== null && match !== 'any') conditions.push(isAmong(match));
  if (noneMatch !== null) conditions.push(noneMatch === 'any' ? 'false' : `not (${isAmong(noneMatch)})`);
  return conditions;
}

/** Checks the precondition for a row that was read. Throws PRECONDITION_FAILED. */
export function requireCondition({ match, noneMatch }: Precondition, row: string): void {
  const hash = hashOf(row);
  if (match !== null && match !== 'any' && !match.includes(hash))
    throw new PlankError(
      'PRECONDITION_FAILED',
      'The row has changed since the version that If-Match names: read it again',
    );
  if (noneMatch !== null && (noneMatch === 'any' || noneMatch.includes(hash)))
    throw new PlankError('PRECONDITION_FAILED', 'The row exists in a version that If-None-Match excludes');
}
