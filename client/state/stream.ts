/**
 * One subscription on the server (the stream), and the application's subscriptions that share it (its members). Pure:
 * each function takes a group and returns the changed group; requests and deliveries go to `output`.
 *
 * The server accepts each row query only once on a connection, but members may begin at different positions. If the
 * stream will bring everything that a member lacks, the member is *attached*; otherwise it is *parked*. When the stream
 * is live and a member is parked, the client ends the stream and requests it again: from an earlier position, or with
 * rows. Members that are ahead of the stream skip changes that they already have.
 *
 *   none         there is no stream
 *   requested    subscribe is sent                     ok → rows or catching-up
 *   rows         pages of the snapshot arrive          the last page → catching-up
 *   catching-up  changes up to the present arrive      live → live
 *   live         changes arrive as they are committed  resync → rows or catching-up
 *   ending       unsubscribe is sent                   ok → requested, or none if there are no members
 *   retrying     the server cannot serve it now        a timer → requested
 *
 *   requested, rows, catching-up, live → retrying   an error with `retry`
 *   any → none                                      the connection is lost, or a final error
 *
 * What must stay true: a member's position moves only with a delivery. If a change is at or before a member's position,
 * the member does not get the change.
 */
import type { ChangeFrame, ErrorFrame, OkFrame, ResyncFrame, ResyncReason, Row, RowsFrame } from '../../shared/wire.ts';
import { isComparable, isUpTo, later } from '../values/positions.ts';
import type { RowQuery } from '../values/row-query.ts';
import { keyRow } from '../values/truncated.ts';
import { type Delivery, type SubscriptionState, tooManyRows } from './delivery.ts';

interface Member {
  readonly id: number;
  /** whether the member begins with rows, and reads the rows again if changes were lost */
  readonly snapshot: boolean;
  /** null: the member begins (or begins again) with rows or with the next `live` */
  readonly position: string | null;
  /** the channel that brought `position`; null: the application gave the position, or there is none */
  readonly ch: string | null;
  readonly attached: boolean;
  readonly state: SubscriptionState;
  /** if a snapshot has more rows than this, the member ends before the rows fill the memory */
  readonly maxRows?: number;
}

type Joining = Pick<Member, 'id' | 'snapshot' | 'position' | 'maxRows'> & Partial<Pick<Member, 'ch'>>;

interface Running {
  readonly ch: string;
  /** what a resume from a position of this stream sends as `ch`: the rows of a channel may be others than at first */
  readonly resumeCh: string;
  readonly snapshot: boolean;
  /** all changes up to this position have arrived; null: the stream has no position yet */
  readonly at: string | null;
  readonly key: readonly string[] | null;
}

export type Stream =
  | { readonly phase: 'none' }
  | { readonly phase: 'requested'; readonly request: number; readonly snapshot: boolean; readonly at: string | null }
  | (Running & { readonly phase: 'rows'; readonly pages: readonly (readonly Row[])[]; readonly count: number })
  /**
   * `isFromRows`: the stream began with rows, and no `live` has come since then. The rows may contain changes with
   * later positions, so before the `live` there is no position from which the stream could continue.
   */
  | (Running & { readonly phase: 'catching-up'; readonly isFromRows: boolean })
  | (Running & { readonly phase: 'live' })
  | { readonly phase: 'ending'; readonly request: number; readonly ch: string }
  | { readonly phase: 'retrying' };

export interface Group {
  /** `queryKey` of the query */
  readonly key: string;
  readonly query: RowQuery;
  readonly members: ReadonlyMap<number, Member>;
  readonly stream: Stream;
  /** how many times in a row the server could not serve the stream */
  readonly failures: number;
}

export type Request =
  | { type: 'subscribe'; query: RowQuery; from: string | null; ch: string | null; snapshot: boolean }
  | { type: 'unsubscribe'; ch: string };

export interface Output {
  /** Sends the request and returns its id. */
  request(request: Request): number;
  deliver(member: number, delivery: Delivery): void;
  /** Calls `requestStream` after a wait. */
  retryLater(group: Group): void;
}

/** The server broke the protocol in a way that would corrupt the rows of a subscription. */
export class ProtocolViolation extends Error {}

const noStream: Stream = { phase: 'none' };
const noPosition = { position: null, ch: null };

/**
 * Whether the member has changes that a failover has undone. This is the case if the member is ahead of the stream, and
 * the member's epoch ended before the stream reached the member's position. Callers then park the member: its next
 * request starts from its own position, and the server answers with `resync`.
 */
function hasLostChanges({ position }: Member, at: string | null, next: string): boolean {
  return position !== null && at !== null && !isUpTo(position, at) && !isComparable(position, next);
}

const needsRows = (member: Member) => member.snapshot && member.position === null;
const beginsNow = (member: Member) => !member.snapshot && member.position === null;
const isParked = (member: Member) => !member.attached && !beginsNow(member);

function update(group: Group, change: (member: Member) => Member): Group {
  return { ...group, members: new Map([...group.members].map(([id, member]) => [id, change(member)])) };
}

export function isRunning(stream: Stream): stream is Extract<Stream, Running> {
  return stream.phase === 'rows' || stream.phase === 'catching-up' || stream.phase === 'live';
}

export function createGroup(key: string, query: RowQuery): Group {
  return { key, query, members: new Map(), stream: noStream, failures: 0 };
}

/**
 * Requests a stream, first for all members that need rows. If no member needs rows, requests it for the members that
 * have a position, from the oldest of these positions.
 */
export function requestStream(group: Group, output: Output): Group {
  if (group.members.size === 0) return { ...group, stream: noStream };
  const members = [...group.members.values()];
  let chosen = members.filter(needsRows);
  let from: string | null = null;
  let ch: string | null = null;
  if (chosen.length === 0) {
    const placed = members.filter((member) => member.position !== null);
    // Only positions of one epoch have an order, and the request names one channel. So only members of one epoch and
    // one channel are chosen: those of a parked member if there is one.
    const first = placed.find(isParked) ?? placed[0];
    if (first) {
      ch = first.ch;
      chosen = placed.filter((member) => member.ch === ch && isComparable(member.position!, first.position!));
      from = chosen.map((member) => member.position!).reduce((a, b) => (isUpTo(a, b) ? a : b));
    }
  }
  const snapshot = chosen.some((member) => member.snapshot && member.position === from);
  const request = output.request({ type: 'subscribe', query: group.query, from, ch, snapshot });
  const attached = new Set(chosen);
  const next = update(group, (member) => ({ ...member, attached: attached.has(member) }));
  return { ...next, stream: { phase: 'requested', request, snapshot, at: from } };
}

function endStream(group: Group, output: Output): Group {
  if (!isRunning(group.stream)) return group;
  const { ch } = group.stream;
  return { ...group, stream: { phase: 'ending', request: output.request({ type: 'unsubscribe', ch }), ch } };
}

/** Ends the stream if the group has no members, or if the stream is live and a member is parked. */
function endIfUnfit(group: Group, output: Output): Group {
  if (group.members.size === 0) return endStream(group, output);
  const { phase } = group.stream;
  return phase === 'live' && [...group.members.values()].some(isParked) ? endStream(group, output) : group;
}

export function addMember(group: Group, member: Joining, output: Output): Group {
  const { stream } = group;
  const { position, snapshot } = member;
  const isBeginning = stream.phase === 'requested' || stream.phase === 'rows';
  let joined: Member = { ch: null, ...member, attached: false, state: 'offline' };
  if (position !== null) {
    const at = stream.phase === 'requested' || isRunning(stream) ? stream.at : null;
    joined = { ...joined, attached: at !== null && isUpTo(at, position) };
  } else if (snapshot) {
    joined = { ...joined, attached: isBeginning && stream.snapshot && stream.at === null };
  } else if (stream.phase === 'live') {
    joined = { ...joined, attached: true, position: stream.at, ch: stream.resumeCh };
    output.deliver(member.id, { kind: 'position', pos: stream.at! });
  }
  return endIfUnfit({ ...group, members: new Map(group.members).set(member.id, joined) }, output);
}

export function removeMember(group: Group, id: number, output: Output): Group {
  const members = new Map(group.members);
  members.delete(id);
  return endIfUnfit({ ...group, members }, output);
}

/**
 * Called when the connection or the stream has ended. If rows have come and no `live` after them, there is no position
 * from which the stream could continue. Then the rows are read again.
 */
export function disconnect(group: Group): Group {
  const isVoid = group.stream.phase === 'catching-up' && group.stream.isFromRows;
  const next = update(group, (member) => {
    if (!member.attached) return member;
    return { ...member, attached: false, ...(isVoid && member.snapshot ? noPosition : {}) };
  });
  return { ...next, stream: noStream };
}

/** The answer to a subscribe or an unsubscribe. */
export function onOk(group: Group, { ch, key }: Pick<OkFrame, 'ch' | 'key'>, output: Output): Group {
  const { stream } = group;
  if (stream.phase === 'ending') return requestStream(group, output);
  if (stream.phase !== 'requested') return group;
  if (ch === undefined) throw new ProtocolViolation('the server answered a subscribe without a channel');
  const running = { ch, resumeCh: ch, snapshot: stream.snapshot, at: stream.at, key: key ?? null };
  const next: Stream =
    stream.snapshot && stream.at === null
      ? { ...running, phase: 'rows', pages: [], count: 0 }
      : { ...running, phase: 'catching-up', isFromRows: false };
  return endIfUnfit({ ...group, stream: next }, output);
}

/** Pages are kept until the last page has arrived. Then all rows are delivered together. */
export function onRows(group: Group, { rows: whole, truncated = [], more }: RowsFrame, output: Output): Group {
  const { stream } = group;
  if (stream.phase !== 'rows') return group;
  const rows = truncated.length === 0 ? whole : [...whole, ...truncated.map((id) => keyRow(id, stream.key))];
  const count = stream.count + rows.length;
  const members = new Map(group.members);
  for (const { id, attached, maxRows = Number.POSITIVE_INFINITY } of group.members.values()) {
    if (!attached || count <= maxRows) continue;
    output.deliver(id, { kind: 'error', ...tooManyRows(maxRows) });
    members.delete(id);
  }
  const next: Group = { ...group, members };
  // no remaining member needs these rows
  if (![...members.values()].some(({ attached }) => attached)) return endStream(next, output);
  const pages = [...stream.pages, rows];
  if (more) return { ...next, stream: { ...stream, pages, count } };
  const all = pages.flat();
  for (const member of members.values()) {
    if (member.attached) output.deliver(member.id, { kind: 'snapshot', rows: all, key: stream.key });
  }
  const { ch, resumeCh, snapshot, at, key } = stream;
  return { ...next, stream: { phase: 'catching-up', ch, resumeCh, snapshot, at, key, isFromRows: true } };
}

export function onChange(group: Group, frame: ChangeFrame, output: Output): Group {
  const { stream } = group;
  if (!isRunning(stream)) return group;
  const change = frame.truncated ? { ...frame, data: keyRow(frame.id, stream.key) } : frame;
  if (stream.phase === 'rows') throw new ProtocolViolation('the server sent a change before the last of the rows');
  const members = new Map(group.members);
  for (const member of group.members.values()) {
    if (!member.attached || (member.position !== null && isUpTo(change.pos, member.position))) continue;
    if (hasLostChanges(member, stream.at, change.pos)) {
      members.set(member.id, { ...member, attached: false });
      continue;
    }
    output.deliver(member.id, { kind: 'change', change });
    members.set(member.id, { ...member, position: change.pos, ch: stream.resumeCh });
  }
  return endIfUnfit({ ...group, members, stream: { ...stream, at: later(stream.at, change.pos) } }, output);
}

/**
 * Handles `live` or `pos`: all changes up to `pos` have arrived. A member that begins with the changes from now on is
 * attached when a `live` comes, or when a `pos` comes while the stream is live.
 */
export function onPosition(group: Group, pos: string, isLiveFrame: boolean, output: Output): Group {
  const { stream } = group;
  if (stream.phase === 'rows' && isLiveFrame)
    throw new ProtocolViolation('the server sent `live` before the last of the rows');
  if (stream.phase !== 'live' && !(isLiveFrame && stream.phase === 'catching-up')) return group;
  const at = later(stream.at, pos);
  const next = update(group, (member) => {
    if (!member.attached && !beginsNow(member)) return member;
    if (hasLostChanges(member, stream.at, at)) return { ...member, attached: false };
    const position = later(member.position, at);
    if (position !== member.position) output.deliver(member.id, { kind: 'position', pos: position });
    return { ...member, position, ch: position === at ? stream.resumeCh : member.ch, attached: true };
  });
  return endIfUnfit({ ...next, failures: 0, stream: { ...stream, phase: 'live', at } }, output);
}

/**
 * Handles a `resync`: the rows and positions of the stream are no longer valid. A member that is ahead of the stream is
 * parked, and continues later from its own position. The other attached members get the `resync`.
 */
export function onResync(group: Group, frame: ResyncFrame, output: Output): Group {
  const { stream } = group;
  if (!isRunning(stream)) return group;
  const { reason, pos, key = stream.key, resume_ch: resumeCh = stream.ch } = frame;
  if (pos !== undefined && !stream.snapshot)
    return onGap({ ...group, stream: { ...stream, key, resumeCh } }, reason, pos, output);
  const next = update(group, (member) => {
    if (!member.attached) return member;
    const { at } = stream;
    const isAhead = at !== null && member.position !== null && !isUpTo(member.position, at);
    if (isAhead) return { ...member, attached: false };
    if (stream.phase !== 'rows') output.deliver(member.id, { kind: 'resync', reason });
    return { ...member, ...noPosition, attached: member.snapshot && stream.snapshot };
  });
  if (!stream.snapshot) return endStream(next, output);
  const { ch } = stream;
  return { ...next, stream: { phase: 'rows', ch, resumeCh, key, snapshot: true, at: null, pages: [], count: 0 } };
}

/**
 * Handles a `resync` with a position: changes before `pos` are missing, and a stream without rows continues after
 * `pos`. Members with `snapshot` must read the rows again.
 */
function onGap(group: Group, reason: ResyncReason, pos: string, output: Output): Group {
  const { stream } = group;
  if (!isRunning(stream)) return group;
  const next = update(group, (member) => {
    const isPast = member.position !== null && isUpTo(pos, member.position);
    if (!member.attached || isPast) return member;
    output.deliver(member.id, { kind: 'resync', reason });
    if (member.snapshot) return { ...member, ...noPosition, attached: false };
    output.deliver(member.id, { kind: 'position', pos });
    return { ...member, position: pos, ch: stream.resumeCh };
  });
  const { ch, resumeCh, snapshot, key } = stream;
  return { ...next, stream: { phase: 'catching-up', ch, resumeCh, snapshot, at: pos, key, isFromRows: false } };
}

/**
 * Handles an error: a request failed, or the stream has ended. Members for which the error is final get the error
 * and are removed.
 */
export function onError(group: Group, error: ErrorFrame, output: Output): Group {
  const { stream } = group;
  // the server has no stream with the channel of this unsubscribe, so the stream has ended already
  if (stream.phase === 'ending') return requestStream(group, output);
  if (stream.phase !== 'requested' && !isRunning(stream)) return group;
  if (error.retry) {
    const next: Group = { ...disconnect(group), stream: { phase: 'retrying' } };
    output.retryLater(next);
    return { ...next, failures: group.failures + 1 };
  }
  const members = new Map(group.members);
  for (const member of group.members.values()) {
    // this error concerns only the members whose position was sent; the positions of the others may be valid
    if (error.code === 'INVALID_POSITION' && member.position !== stream.at) continue;
    output.deliver(member.id, { kind: 'error', code: error.code, message: error.message });
    members.delete(member.id);
  }
  return requestStream({ ...group, members, stream: noStream }, output);
}

/** Delivers the new state to each member whose state has changed. `link` is null if there is no connection. */
export function deliverStates(group: Group, link: { staleSince: number | null } | null, output: Output): Group {
  const stateOf = (member: Member): SubscriptionState => {
    if (!link) return 'offline';
    const { stream } = group;
    const isComplete = member.attached && stream.phase === 'live' && isUpTo(member.position!, stream.at!);
    if (!isComplete) return 'catching-up';
    return link.staleSince === null ? 'live' : 'stale';
  };
  const changed = [...group.members.values()].filter((member) => member.state !== stateOf(member));
  if (changed.length === 0) return group;
  const members = new Map(group.members);
  for (const member of changed) {
    const state = stateOf(member);
    const since = state === 'stale' ? { since: link!.staleSince! } : {};
    output.deliver(member.id, { kind: 'state', state, ...since });
    members.set(member.id, { ...member, state });
  }
  return { ...group, members };
}
