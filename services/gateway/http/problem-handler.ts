/**
 * The last handler of the app: answers every failure as application/problem+json. A PlankError
 * reaches the client as it is, and errors of express and its body parser are translated here.
 * Anything else is INTERNAL and is logged once, without bodies, parameters or Postgres' texts about
 * row contents.
 */
import type { ErrorRequestHandler, Response } from 'express';
import type { Log } from '#shared/process/logger.ts';
import { catalogue, type ErrorCode, PlankError } from './errors.ts';
import { routeOf } from './routes.ts';

interface HttpError extends Error {
  status: number;
  type?: string;
  limit?: number;
}

/**
 * Translates an error of express or its body parser. Such an error carries a status. The text of the
 * error may reach the client, because the text is about bytes that the client sent.
 */
function fromExpress(error: HttpError): PlankError {
  if (error.type === 'entity.too.large')
    return new PlankError('TOO_LARGE', `The body is larger than ${error.limit} bytes`, { cause: error });
  if (error.status === 415) return new PlankError('UNSUPPORTED_MEDIA_TYPE', error.message, { cause: error });
  if (error.type === 'entity.parse.failed' && error instanceof RangeError)
    return new PlankError('MALFORMED', 'The body is nested too deeply', { cause: error });
  if (error.type === 'entity.parse.failed')
    return new PlankError('MALFORMED', `The body is not JSON: ${error.message}`, { cause: error });
  return new PlankError('MALFORMED', error.message, { cause: error });
}

function toPlankError(error: unknown): PlankError | undefined {
  if (error instanceof PlankError) return error;
  const status = error instanceof Error ? (error as Partial<HttpError>).status : undefined;
  if (status !== undefined && status >= 400 && status < 500) return fromExpress(error as HttpError);
  return undefined;
}

function sendProblem(response: Response, error: PlankError): void {
  const { status, title, retry } = catalogue[error.code];
  if (retry) response.set('Retry-After', String(error.retryAfterS ?? 1));
  response
    .status(status)
    .set('Cache-Control', 'no-store')
    .type('application/problem+json')
    .send(
      JSON.stringify({
        type: `urn:plank:${error.code.toLowerCase().replaceAll('_', '-')}` satisfies string,
        title,
        status,
        code: error.code satisfies ErrorCode,
        detail: error.message,
        ...(error.fields.length > 0 ? { errors: error.fields } : {}),
      }),
    );
}

export function problemHandler(log: Log): ErrorRequestHandler {
  return (error: unknown, request, response, _next) => {
    const known = toPlankError(error);
    if (known === undefined) {
      const { method } = request;
      log.error({ err: error, method, route: routeOf(response) }, 'a request failed');
    }
    // part of the answer has been sent: end the connection, so that the client sees that the answer is
    // incomplete
    if (response.headersSent) response.destroy();
    else
      sendProblem(
        response,
        known ?? new PlankError('INTERNAL', 'The request failed; the log of this replica has the error'),
      );
  };
}
