/** The claims of a token. */
export type Claims = Readonly<Record<string, unknown>>;

/**
 * Returns the claim with this name. The name of a claim may contain dots. If no claim has this name, the name is a
 * path, for example `org.id` or `teams.0`, and the result is the member at this path. Undefined: there is neither a
 * claim nor a member. Only own members count, so that no name reaches the properties that JavaScript adds to values.
 */
export function claimOf(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const member of name.split('.')) {
    if (typeof value !== 'object' || value === null || !isMember(value, member)) return undefined;
    value = (value as Record<string, unknown>)[member];
  }
  return value;
}

/** Tests for enumerable properties: `length` is an own property of an array, but not a member of the JSON. */
const isMember = (value: object, name: string): boolean => Object.prototype.propertyIsEnumerable.call(value, name);
