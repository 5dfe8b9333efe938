/** The one place where bytes from WebSocket clients become typed messages. PROTOCOL is in README until it has a file of its own. */
import { z } from 'zod';

const plainMessage = z.discriminatedUnion('action', [
  z.strictObject({ action: z.literal('subscribe'), table: z.string().min(1).max(200) }),
  z.strictObject({ action: z.literal('unsubscribe'), table: z.string().min(1).max(200) }),
]);

export type PlainMessage = z.infer<typeof plainMessage>;

/** A plain-mode message, or what is wrong with it in a few words (a close reason holds 123 bytes). */
export function parsePlainMessage(text: string): PlainMessage | { error: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { error: 'the message is not JSON' };
  }
  const parsed = plainMessage.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  if (issue.code === 'unrecognized_keys') return { error: `unknown field ${JSON.stringify(issue.keys[0])}` };
  return { error: issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message };
}

/** `?tables=` and `?since=` of a connection, or what is wrong with them. */
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
