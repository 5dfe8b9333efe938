/** The errors of the SDK that an application may want to handle, by their `code`. */

export class PlankError extends Error {
  override readonly name = 'PlankError';
  /**
   * An error code of the protocol (PROTOCOL.md, "Errors"), or
   * - `UNREACHABLE`: there is no connection to the server; the SDK goes on trying
   * - `UNAUTHORIZED`: the connection is closed for good, because the server refused every token
   * - `FORBIDDEN`: the connection is closed for good, because a renewed token belonged to another user (as an error of
   *   the protocol: the subscription has ended, because it names a column that the user may not read)
   * - `CLOSED`: the connection is closed for good
   * - `RESYNC`: changes are missing; read the rows again
   * - `TOO_MANY_ROWS`: a live query has more rows than its `maxRows`
   */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}
