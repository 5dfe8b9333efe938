/** The claims of a token, for the filters and presets of policies that refer to claims. */
import { type Claims, claimOf } from '../access/claims.ts';
import type { Column } from '../catalog/catalog.ts';
import { codecOf } from './types.ts';

/** A policy needs a claim that is missing, or whose value has another type. Then the policy allows nothing. */
export class ClaimMissing extends Error {
  override readonly name = 'ClaimMissing';

  constructor(claim: string) {
    super(`the claim ${claim} is missing or of another type`);
  }
}

/** Throws ClaimMissing if there is no claim with this name or at this path, or if the claim is null. */
export function claimAt(claims: Claims, name: string): unknown {
  const value = claimOf(claims, name);
  if (value === undefined || value === null) throw new ClaimMissing(name);
  return value;
}

/** Whether a JSON value can be written to the column. For a type that filters cannot compare, most values count. */
export function isValueOf(column: Column, value: unknown): boolean {
  if (value === null) return true;
  const codec = codecOf(column);
  if (codec) return codec.parse(value) !== undefined;
  // a whole number beyond 2^53 may have been rounded when its JSON was parsed
  return typeof value !== 'number' || !Number.isInteger(value) || Number.isSafeInteger(value);
}
