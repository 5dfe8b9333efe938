/**
 * The catalogue of errors: every failure that a client can see, with its code, status and text.
 * An error thrown as `PlankError` reaches the client as it is; anything else is a fault of ours and reaches it as INTERNAL.
 */

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
  UNAUTHORIZED: { status: 401, title: 'This needs a token', retry: false },
  FORBIDDEN: { status: 403, title: 'This is not allowed', retry: false },
  FORBIDDEN_ORIGIN: { status: 403, title: 'This origin is not allowed', retry: false },
  NOT_FOUND: { status: 404, title: 'There is nothing here', retry: false },
  METHOD_NOT_ALLOWED: { status: 405, title: 'The method is not allowed here', retry: false },
  CONFLICT: { status: 409, title: 'The row is in conflict with another', retry: false },
  PRECONDITION_FAILED: { status: 412, title: 'The row is not what the request is about', retry: false },
  TOO_LARGE: { status: 413, title: 'The request is too large', retry: false },
  ROW_TOO_LARGE: { status: 422, title: 'The row is too large to be sent', retry: false },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, title: 'The body must be application/json', retry: false },
  REFUSED: { status: 422, title: 'The database refuses this', retry: false },
  TOO_MANY: { status: 429, title: 'Too many connections', retry: true },
  TOO_MANY_GUESSES: { status: 429, title: 'Too many wrong tokens', retry: false },
  UPGRADE_REQUIRED: { status: 426, title: 'This is served to WebSockets', retry: false },
  INTERNAL: { status: 500, title: 'Something went wrong here', retry: true },
  PEER: { status: 502, title: 'Another process did not do it', retry: true },
  LEAVING: { status: 503, title: 'This replica takes no more clients', retry: true },
  BUSY: { status: 503, title: 'Too many requests wait for the database', retry: true },
  UNAVAILABLE: { status: 503, title: 'The database does not answer', retry: true },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof catalogue;

/** One field that is wrong: `path` is its name in the body or query ("value", "limit"). */
export interface FieldError {
  path: string;
  message: string;
}

export class PlankError extends Error {
  override readonly name = 'PlankError';
  readonly code: ErrorCode;
  readonly fields: readonly FieldError[];

  constructor(code: ErrorCode, detail: string, options: { fields?: readonly FieldError[]; cause?: unknown } = {}) {
    super(detail, { cause: options.cause });
    this.code = code;
    this.fields = options.fields ?? [];
  }

  get status(): number {
    return catalogue[this.code].status;
  }
}
