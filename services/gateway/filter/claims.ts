/** The claims of a token, as policies refer to them. */

export type Claims = Readonly<Record<string, unknown>>;

/** A policy needs a claim that is missing, or whose value has another type. Then the policy allows nothing. */
export class ClaimMissing extends Error {
  override readonly name = 'ClaimMissing';

  constructor(claim: string) {
    super(`the claim ${claim} is missing or of another type`);
  }
}

/**
 * The claim with this name, which may contain dots; else the member at this dotted path. Throws ClaimMissing if
 * there is none, or if it is null.
 */
export function claimAt(claims: Claims, name: string): unknown {
  let value: unknown = Object.hasOwn(claims, name) ? claims[name] : claims;
  if (value === claims)
    for (const member of name.split('.'))
      value =
        typeof value === 'object' && value !== null && Object.hasOwn(value, member)
          ? (value as Record<string, unknown>)[member]
          : undefined;
  if (value === undefined || value === null) throw new ClaimMissing(name);
  return value;
}
