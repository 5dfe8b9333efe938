/**
 * The catalogue of REST errors: every failure that a client can see, with its code, status and title. A
 * thrown PlankError reaches the client as it is. Any other error is a fault of Plank, and the client gets
 * INTERNAL (problem-handler.ts).
 */
import type { z } from 'zod';

interface CatalogueEntry {
  /** HTTP status of the problem document */
  readonly status: number;
  readonly title: string;
  /** whether the same request may succeed later */
  readonly retry: boolean;
}

export const catalogue = {
  MALFORMED: { status: 400, title: 'The request could not be read', retry: false },
  INVALID: { status: 400, title: 'The request has invalid fields', retry: false },
  UNAUTHORIZED: { status: 401, title: 'A valid token is required', retry: false },
  FORBIDDEN: { status: 403, title: 'This is not allowed', retry: false },
  FORBIDDEN_ORIGIN: { status: 403, title: 'This origin is not allowed', retry: false },
  NOT_FOUND: { status: 404, title: 'There is nothing here', retry: false },
  METHOD_NOT_ALLOWED: { status: 405, title: 'The method is not allowed here', retry: false },
  CONFLICT: { status: 409, title: 'The row is in conflict with another', retry: false },
  PRECONDITION_FAILED: { status: 412, title: 'The row does not meet the precondition', retry: false },
  TOO_LARGE: { status: 413, title: 'The request is too large', retry: false },
  ROW_TOO_LARGE: { status: 422, title: 'The row is too large to be sent', retry: false },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, title: 'The body must be application/json', retry: false },
  REFUSED: { status: 422, title: 'The database refuses the request', retry: false },
  TOO_MANY: { status: 429, title: 'Too many connections or requests', retry: true },
  TOO_MANY_GUESSES: { status: 429, title: 'Too many wrong tokens', retry: false },
  UPGRADE_REQUIRED: { status: 426, title: 'This address serves only WebSockets', retry: false },
  INTERNAL: { status: 500, title: 'Something went wrong here', retry: true },
  KEYS_UNAVAILABLE: { status: 503, title: 'Tokens cannot be checked now', retry: true },
  PEER: { status: 502, title: 'Another process did not carry out the request', retry: true },
  LEAVING: { status: 503, title: 'This replica accepts no clients now', retry: true },
  BUSY: { status: 503, title: 'Too many requests wait for the database', retry: true },
  UNAVAILABLE: { status: 503, title: 'The database does not answer', retry: true },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof catalogue;

/**
 * One wrong field. `path` is the field's name in the body or in the query ("value", "limit"), or empty if
 * the whole body is wrong.
 */
export interface FieldError {
  path: string;
  message: string;
}

export class PlankError extends Error {
  override readonly name = 'PlankError';
  readonly code: ErrorCode;
  readonly fields: readonly FieldError[];
  /** when a retry may succeed, in seconds; null: at once, if at all */
  readonly retryAfterS: number | null;

  constructor(
    code: ErrorCode,
    detail: string,
    options: { fields?: readonly FieldError[]; retryAfterS?: number; cause?: unknown } = {},
  ) {
    super(detail, { cause: options.cause });
    this.retryAfterS = options.retryAfterS ?? null;
    this.code = code;
    this.fields = options.fields ?? [];
  }

  get status(): number {
    return catalogue[this.code].status;
  }
}

/** the most wrong fields that an answer lists */
const maxFields = 20;
const maxNameLength = 100;

/** Names that clients send are cut to 100 characters in answers. */
export const shorten = (name: string): string =>
  name.length > maxNameLength ? `${name.slice(0, maxNameLength)}…` : name;

/** INVALID. The answer has the wrong fields both in its text and as `errors`. */
export function invalidFields(fields: readonly FieldError[], cause?: unknown): PlankError {
  const shown = fields.slice(0, maxFields).map(({ path, message }) => ({ path: shorten(path), message }));
  const sentences = shown.map(({ path, message }) => (path === '' ? message : `${path} ${message}`));
  const rest = fields.length > shown.length ? [`and ${fields.length - shown.length} more`] : [];
  return new PlankError('INVALID', [...sentences, ...rest].join('; '), { fields: shown, cause });
}

/** INVALID, made from zod's issues. `unknown` is the message for an unknown key: "is not a column of items". */
export function fromZod(error: z.ZodError, unknown: string): PlankError {
  const fields = error.issues.flatMap((issue): FieldError[] => {
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => ({ path: key, message: unknown }));
    return [{ path: issue.path.join('.'), message: issue.message }];
  });
  return invalidFields(fields, error);
}
