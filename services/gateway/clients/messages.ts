/** Only here do texts from clients become typed messages. PROTOCOL.md defines the messages. */
import { z } from 'zod';

const plainMessage = z.discriminatedUnion('action', [
  z.strictObject({ action: z.literal('subscribe'), table: z.string().min(1).max(200) }),
  z.strictObject({ action: z.literal('unsubscribe'), table: z.string().min(1).max(200) }),
]);

export type PlainMessage = z.infer<typeof plainMessage>;

/** Parses a plain-mode message. `error`: what is wrong, in a short text, as a close reason holds 123 bytes. */
export function parsePlainMessage(text: string): PlainMessage | { error: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { error: unreadable(error) };
  }
  const parsed = plainMessage.safeParse(value);
  if (parsed.success) return parsed.data;
  return { error: describe(parsed.error.issues[0]!) };
}

/** The tables that `?tables=` names; null: there is no `?tables=`, so every table. */
export function parseTables(text: string | null): string[] | null {
  if (text === null) return null;
  return [
    ...new Set(
      text
        .split(',')
        .map((name) => name.trim())
        .filter(Boolean),
    ),
  ];
}

const requestId = z.number().int().positive().max(Number.MAX_SAFE_INTEGER);
const clientFrame = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('hello'), token: z.string().max(16_384).optional() }),
  z.strictObject({ type: z.literal('auth'), id: requestId, token: z.string().max(16_384) }),
  z.strictObject({
    type: z.literal('subscribe'),
    id: requestId,
    table: z.string().min(1).max(200),
    // checked against the table's columns by filter/parse.ts
    where: z.unknown().optional(),
    columns: z.array(z.string().max(200)).min(1).max(1_600).optional(),
    from: z.string().max(40).optional(),
    ch: z.string().min(1).max(40).optional(),
    snapshot: z.boolean().optional(),
  }),
  z.strictObject({ type: z.literal('unsubscribe'), id: requestId, ch: z.string().min(1).max(40) }),
  z.strictObject({ type: z.literal('ping') }),
]);

export type ClientMessage = z.infer<typeof clientFrame>;
export type HelloMessage = Extract<ClientMessage, { type: 'hello' }>;
export type AuthMessage = Extract<ClientMessage, { type: 'auth' }>;
export type SubscribeMessage = Extract<ClientMessage, { type: 'subscribe' }>;

/**
 * Parses a message of plank.v1. `error`: what is wrong. `id`: the malformed message's own id, to
 * which the caller sends the error; absent: the message has none, so the caller closes the
 * connection. `parseJson` lets the caller keep numbers in filters that JavaScript would round.
 */
export function parseClientMessage(
  text: string,
  parseJson: (text: string) => unknown = JSON.parse,
): ClientMessage | { error: string; id?: number } {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    return { error: unreadable(error) };
  }
  const parsed = clientFrame.safeParse(value);
  if (parsed.success) return parsed.data;
  const id = requestId.safeParse((value as { id?: unknown } | null)?.id);
  return { error: describe(parsed.error.issues[0]!), ...(id.success ? { id: id.data } : {}) };
}

/**
 * With a reviver, JSON.parse walks the value recursively. So a RangeError means that the text is nested too deeply; the
 * text may still be valid JSON.
 */
function unreadable(error: unknown): string {
  return error instanceof RangeError ? 'the message is nested too deeply' : 'the message is not JSON';
}

function describe(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') return `unknown field ${JSON.stringify(issue.keys[0])}`;
  return issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message;
}
