/** The claims of a token. */
export type Claims = Readonly<Record<string, unknown>>;

/**
 * The claim with this name, which may contain dots; else the member at this dotted path, as `org.id` or `teams.0`.
 * Undefined: there is none. Only own members count, so that no name reaches what JavaScript adds to values.
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

/** The length of an array is its own property, but no member of the JSON. */
const isMember = (value: object, name: string): boolean => Object.prototype.propertyIsEnumerable.call(value, name);
