/**
 * One server subscription (a stream) and the application's subscriptions that share it (its members). Pure: each function
 * takes a group and answers the next one; what is to be sent and delivered goes to `out`.
 *
 * The server allows a filter once a connection, yet members may begin at different places. So a member is *attached* to the
 * running stream where the stream gives it everything that it lacks, and *parked* where not. When the stream is live, it is
 * ended for a parked member and asked for anew, from further back or with the rows. Members that are ahead of it skip what
 * they have. No member misses anything by it.
 *
 *   none → asked (subscribe sent) → rows → behind → live → leaving (unsubscribe sent) → none
 *          asked, rows, behind, live → pausing (the server cannot now) → none
 *
 * What must stay true: a member's position moves only with, or behind, a delivery; what is at or below it is not delivered.
 */
import {
  type ChangeFrame,
  type ErrorFrame,
  parsePosition,
  type ResyncFrame,
  type ResyncReason,
  type Row,
  type RowsFrame,
} from '../../shared/wire.ts';
import type { Subject } from '../values/canonical.ts';
import { keyRow } from '../values/truncated.ts';

/** `stale`: connected and complete as far as it goes, but nothing has said for some seconds that changes can arrive. */
export type SubscriptionState = 'offline' | 'catching-up' | 'live' | 'stale' | 'ended';

/** What reaches a subscription of the application. */
export type Delivery =
  /** every row that the filter admits; replaces the picture */
  | { kind: 'snapshot'; rows: readonly Row[]; key: readonly string[] | null }
  | { kind: 'change'; change: ChangeFrame }
  /** everything up to here has been delivered */
  | { kind: 'position'; pos: string }
  /** there is a gap: a snapshot follows where one is wanted, else the changes from now on */
  | { kind: 'resync'; reason: ResyncReason }
  /** `since`: of `stale`, on the brain's clock */
  | { kind: 'state'; state: SubscriptionState; since?: number }
  /** the subscription has ended */
  | { kind: 'error'; code: string; message: string };

interface Member {
  readonly id: number;
  /** wants rows to begin with, and again where changes were lost */
  readonly snapshot: boolean;
  /** null: it has to begin (anew), with rows or now */
  readonly position: string | null;
  readonly attached: boolean;
  readonly state: SubscriptionState;
  /** of a snapshot: with more of them it ends, before they fill the memory */
  readonly maxRows?: number;
}

type Joining = Pick<Member, 'id' | 'snapshot' | 'position' | 'maxRows'>;

interface Running {
  readonly ch: string;
  readonly snapshot: boolean;
  /** everything up to here has come; null: no position has come yet */
  readonly at: string | null;
  readonly key: readonly string[] | null;
}

export type Stream =
  | { readonly phase: 'none' }
  | { readonly phase: 'asked'; readonly request: number; readonly snapshot: boolean; readonly at: string | null }
  | (Running & { readonly phase: 'rows'; readonly pages: readonly (readonly Row[])[]; readonly count: number })
  /** `begun`: with rows, and no `live` has come since. Until then no position says which changes the rows already hold. */
  | (Running & { readonly phase: 'behind'; readonly begun: boolean })
  | (Running & { readonly phase: 'live' })
  | { readonly phase: 'leaving'; readonly request: number; readonly ch: string }
  | { readonly phase: 'pausing' };

export interface Group {
  readonly key: string;
  readonly subject: Subject;
  readonly members: ReadonlyMap<number, Member>;
  readonly stream: Stream;
  /** in a row, of asking for the stream */
  readonly failures: number;
}

type Request =
  | { type: 'subscribe'; subject: Subject; from: string | null; snapshot: boolean }
  | { type: 'unsubscribe'; ch: string };

export interface Out {
  /** Sends it and answers its id. */
  request(request: Request): number;
  deliver(member: number, delivery: Delivery): void;
  /** Calls `ask` after a while. */
  pause(group: Group): void;
}

/** Thrown where a server breaks the protocol in a way that would corrupt a picture. */
export class ProtocolViolation extends Error {}

const noStream: Stream = { phase: 'none' };

/** a ≤ b, known only within one epoch. */
function isUpTo(a: string, b: string): boolean {
  const [left, right] = [parsePosition(a), parsePosition(b)];
  return left !== null && right !== null && left.epoch === right.epoch && left.seq <= right.seq;
}

function later(a: string | null, b: string): string {
  return a !== null && isUpTo(b, a) ? a : b;
}

function isComparable(a: string, b: string): boolean {
  return isUpTo(a, b) || isUpTo(b, a);
}

/**
 * It is ahead of the stream, in an epoch that has ended before the stream came so far: it has what is no more. The server would say
 * so (`resync`) if it were asked from there, so it is parked.
 */
function isAstray({ position }: Member, at: string | null, next: string): boolean {
  return position !== null && at !== null && !isUpTo(position, at) && !isComparable(position, next);
}

const needsRows = (member: Member) => member.snapshot && member.position === null;
const beginsNow = (member: Member) => !member.snapshot && member.position === null;
const isParked = (member: Member) => !member.attached && !beginsNow(member);

function update(group: Group, change: (member: Member) => Member): Group {
  return { ...group, members: new Map([...group.members].map(([id, member]) => [id, change(member)])) };
}

export function isRunning(stream: Stream): stream is Extract<Stream, Running> {
  return stream.phase === 'rows' || stream.phase === 'behind' || stream.phase === 'live';
}

export function createGroup(key: string, subject: Subject): Group {
  return { key, subject, members: new Map(), stream: noStream, failures: 0 };
}

/** Asks for a stream. Members that lack rows come first; then those with a position, from the oldest on. */
export function ask(group: Group, out: Out): Group {
  if (group.members.size === 0) return { ...group, stream: noStream };
  const members = [...group.members.values()];
  let chosen = members.filter(needsRows);
  let from: string | null = null;
  if (chosen.length === 0) {
    const placed = members.filter((member) => member.position !== null);
    // one that waited goes first: positions of other epochs cannot be compared with its own
    const first = placed.find(isParked) ?? placed[0];
    if (first) {
      chosen = placed.filter((member) => isComparable(member.position!, first.position!));
      from = chosen.map((member) => member.position!).reduce((a, b) => (isUpTo(a, b) ? a : b));
    }
  }
  const snapshot = chosen.some((member) => member.snapshot && member.position === from);
  const request = out.request({ type: 'subscribe', subject: group.subject, from, snapshot });
  const attached = new Set(chosen);
  const next = update(group, (member) => ({ ...member, attached: attached.has(member) }));
  return { ...next, stream: { phase: 'asked', request, snapshot, at: from } };
}

function leave(group: Group, out: Out): Group {
  if (!isRunning(group.stream)) return group;
  const { ch } = group.stream;
  return { ...group, stream: { phase: 'leaving', request: out.request({ type: 'unsubscribe', ch }), ch } };
}

/** Nobody left, or a live stream that lacks what somebody needs: ends it. */
function settle(group: Group, out: Out): Group {
  if (group.members.size === 0) return leave(group, out);
  const { phase } = group.stream;
  return phase === 'live' && [...group.members.values()].some(isParked) ? leave(group, out) : group;
}

export function join(group: Group, member: Joining, out: Out): Group {
  const { stream } = group;
  const { position, snapshot } = member;
  const starts = stream.phase === 'asked' || stream.phase === 'rows';
  let joined: Member = { ...member, attached: false, state: 'offline' };
  if (position !== null) {
    const at = stream.phase === 'asked' || isRunning(stream) ? stream.at : null;
    joined = { ...joined, attached: at !== null && isUpTo(at, position) };
  } else if (snapshot) {
    joined = { ...joined, attached: starts && stream.snapshot && stream.at === null };
  } else if (stream.phase === 'live') {
    joined = { ...joined, attached: true, position: stream.at };
    out.deliver(member.id, { kind: 'position', pos: stream.at! });
  }
  return settle({ ...group, members: new Map(group.members).set(member.id, joined) }, out);
}

export function part(group: Group, id: number, out: Out): Group {
  const members = new Map(group.members);
  members.delete(id);
  return settle({ ...group, members }, out);
}

/** The stream is gone. Rows whose first `live` has not come are asked for anew. */
export function disconnect(group: Group): Group {
  const isVoid = group.stream.phase === 'behind' && group.stream.begun;
  const next = update(group, (member) => {
    if (!member.attached) return member;
    return { ...member, attached: false, position: isVoid && member.snapshot ? null : member.position };
  });
  return { ...next, stream: noStream };
}

export function onOk(group: Group, ch: string | undefined, key: readonly string[] | undefined, out: Out): Group {
  const { stream } = group;
  if (stream.phase === 'leaving') return ask(group, out);
  if (stream.phase !== 'asked') return group;
  if (ch === undefined) throw new ProtocolViolation('a subscribe was answered without a channel');
  const running = { ch, snapshot: stream.snapshot, at: stream.at, key: key ?? null };
  const begins = stream.snapshot && stream.at === null;
  const next: Stream = begins
    ? { ...running, phase: 'rows', pages: [], count: 0 }
    : { ...running, phase: 'behind', begun: false };
  return settle({ ...group, stream: next }, out);
}

export function tooManyRows(maxRows: number): { code: string; message: string } {
  return { code: 'TOO_MANY_ROWS', message: `there are more than ${maxRows} rows: narrow the filter, or raise maxRows` };
}

export function onRows(group: Group, { rows: whole, truncated = [], more }: RowsFrame, out: Out): Group {
  const { stream } = group;
  if (stream.phase !== 'rows') return group;
  const rows = truncated.length === 0 ? whole : [...whole, ...truncated.map((id) => keyRow(id, stream.key))];
  const count = stream.count + rows.length;
  const members = new Map(group.members);
  for (const { id, attached, maxRows = Number.POSITIVE_INFINITY } of group.members.values()) {
    if (!attached || count <= maxRows) continue;
    out.deliver(id, { kind: 'error', ...tooManyRows(maxRows) });
    members.delete(id);
  }
  const next: Group = { ...group, members };
  // nobody is left who waits for these
  if (![...members.values()].some(({ attached }) => attached)) return leave(next, out);
  const pages = [...stream.pages, rows];
  if (more) return { ...next, stream: { ...stream, pages, count } };
  const all = pages.flat();
  for (const member of members.values()) {
    if (member.attached) out.deliver(member.id, { kind: 'snapshot', rows: all, key: stream.key });
  }
  const { ch, snapshot, at, key } = stream;
  return { ...next, stream: { phase: 'behind', ch, snapshot, at, key, begun: true } };
}

export function onChange(group: Group, frame: ChangeFrame, out: Out): Group {
  const { stream } = group;
  if (!isRunning(stream)) return group;
  const change = frame.truncated ? { ...frame, data: keyRow(frame.id, stream.key) } : frame;
  if (stream.phase === 'rows') throw new ProtocolViolation('a change came before the last of the rows');
  const members = new Map(group.members);
  for (const member of group.members.values()) {
    if (!member.attached || (member.position !== null && isUpTo(change.pos, member.position))) continue;
    if (isAstray(member, stream.at, change.pos)) {
      members.set(member.id, { ...member, attached: false });
      continue;
    }
    out.deliver(member.id, { kind: 'change', change });
    members.set(member.id, { ...member, position: change.pos });
  }
  return settle({ ...group, members, stream: { ...stream, at: later(stream.at, change.pos) } }, out);
}

/** Everything up to `pos` has come: `live` brings members that begin now, `pos` only moves positions. */
export function onPosition(group: Group, pos: string, isLiveFrame: boolean, out: Out): Group {
  const { stream } = group;
  if (stream.phase === 'rows' && isLiveFrame) throw new ProtocolViolation('live came before the last of the rows');
  if (stream.phase !== 'live' && !(isLiveFrame && stream.phase === 'behind')) return group;
  const at = later(stream.at, pos);
  const next = update(group, (member) => {
    if (!member.attached && !beginsNow(member)) return member;
    if (isAstray(member, stream.at, at)) return { ...member, attached: false };
    const position = later(member.position, at);
    if (position !== member.position) out.deliver(member.id, { kind: 'position', pos: position });
    return { ...member, position, attached: true };
  });
  return settle({ ...next, failures: 0, stream: { ...stream, phase: 'live', at } }, out);
}

/** Voids what the stream has brought; a member that is ahead of where it stopped asks from its own place. */
export function onResync(group: Group, frame: ResyncFrame, out: Out): Group {
  const { stream } = group;
  if (!isRunning(stream)) return group;
  const { reason, pos, key = stream.key } = frame;
  if (pos !== undefined && !stream.snapshot) return onGap({ ...group, stream: { ...stream, key } }, reason, pos, out);
  const next = update(group, (member) => {
    if (!member.attached) return member;
    const { at } = stream;
    const isAhead = at !== null && member.position !== null && !isUpTo(member.position, at);
    if (isAhead) return { ...member, attached: false };
    if (stream.phase !== 'rows') out.deliver(member.id, { kind: 'resync', reason });
    return { ...member, position: null, attached: member.snapshot && stream.snapshot };
  });
  if (!stream.snapshot) return leave(next, out);
  const { ch } = stream;
  return { ...next, stream: { phase: 'rows', ch, key, snapshot: true, at: null, pages: [], count: 0 } };
}

/** A stream without rows goes on behind `pos`, where something is missing. Whoever keeps rows needs them anew. */
function onGap(group: Group, reason: ResyncReason, pos: string, out: Out): Group {
  const { stream } = group;
  if (!isRunning(stream)) return group;
  const next = update(group, (member) => {
    const isPast = member.position !== null && isUpTo(pos, member.position);
    if (!member.attached || isPast) return member;
    out.deliver(member.id, { kind: 'resync', reason });
    if (member.snapshot) return { ...member, position: null, attached: false };
    out.deliver(member.id, { kind: 'position', pos });
    return { ...member, position: pos };
  });
  const { ch, snapshot, key } = stream;
  return { ...next, stream: { phase: 'behind', ch, snapshot, at: pos, key, begun: false } };
}

/** A request failed, or the stream has ended. Members for whom it is final get the error and are gone. */
export function onError(group: Group, error: ErrorFrame, out: Out): Group {
  const { stream } = group;
  if (stream.phase === 'leaving') return ask(group, out); // there is nothing to leave: as good as left
  if (stream.phase !== 'asked' && !isRunning(stream)) return group;
  if (error.retry) {
    const next: Group = { ...disconnect(group), stream: { phase: 'pausing' } };
    out.pause(next);
    return { ...next, failures: group.failures + 1 };
  }
  const members = new Map(group.members);
  for (const member of group.members.values()) {
    if (error.code === 'INVALID_POSITION' && member.position !== stream.at) continue;
    out.deliver(member.id, { kind: 'error', code: error.code, message: error.message });
    members.delete(member.id);
  }
  return ask({ ...group, members, stream: noStream }, out);
}

/** Tells members whose state has become another. `link`: null where there is no connection. */
export function tellStates(group: Group, link: { staleSince: number | null } | null, out: Out): Group {
  const stateOf = (member: Member): SubscriptionState => {
    if (!link) return 'offline';
    const { stream } = group;
    const isThere = member.attached && stream.phase === 'live' && isUpTo(member.position!, stream.at!);
    if (!isThere) return 'catching-up';
    return link.staleSince === null ? 'live' : 'stale';
  };
  const changed = [...group.members.values()].filter((member) => member.state !== stateOf(member));
  if (changed.length === 0) return group;
  const members = new Map(group.members);
  for (const member of changed) {
    const state = stateOf(member);
    const since = state === 'stale' ? { since: link!.staleSince! } : {};
    out.deliver(member.id, { kind: 'state', state, ...since });
    members.set(member.id, { ...member, state });
  }
  return { ...group, members };
}
