// A model of Plank for tests of the SDK's state machine: replicas that lag behind a log, a network
// that may break anywhere, and members that check their deliveries against the log. Nothing here
// waits: `act` does one step, which a test chooses. What must stay true: the model speaks plank.v1
// as PROTOCOL.md says, in order, no frame twice.

import assert from 'node:assert/strict';
import type { Delivery } from '#client/state/delivery.ts';
import { reduce } from '#client/state/machine.ts';
import { type Effect, type Event, initialState, type State } from '#client/state/model.ts';
import { queryKey } from '#client/values/row-query.ts';
import type { ClientFrame, Row, ServerFrame, SubscribeFrame } from '#shared/wire.ts';
import { ModelLog, tables } from './model-log.ts';

interface Channel {
  ch: string;
  table: string;
  snapshot: boolean;
  /** pages of rows that are not sent yet */
  pages: Row[][] | null;
  cursor: number;
  isLive: boolean;
}

/**
 * One subscription of the application. `at` counts the log's entries that it has, null: unknown.
 */
interface Member {
  id: number;
  table: string;
  snapshot: boolean;
  at: number | null;
  picture: Map<number, number> | null;
  /** live after its rows: from then on it has a position to resume from */
  settled: boolean;
  state: string;
}

const pageSize = 2;

const flow = [
  'write',
  'up',
  'up',
  'down',
  'down',
  'down',
  'serve',
  'serve',
  'serve',
  'pos',
  'replicate',
  'connect',
  'timer',
];
/** The steps that a test may choose. The two numbers of an action choose among channels, rows and so on. */
export const actions = [
  ...flow,
  ...flow,
  ...flow,
  'subscribe',
  'subscribe',
  'unsubscribe',
  'resync',
  'drop',
  'drain',
  'trim',
  'fork',
  'unavailable',
  'silence',
] as const;
export type Action = readonly [kind: string, a: number, b: number];

export class RelayModel {
  readonly #log = new ModelLog();
  #now = 0;
  #state: State = initialState;
  readonly #timers = new Map<string, number>();
  readonly #members = new Map<number, Member>();
  #nextMember = 1;
  #dialing: number | null = null;
  #socket: number | null = null;
  #up: ClientFrame[] = [];
  #down: ServerFrame[] = [];
  #channels = new Map<string, Channel>();
  #replica = 0;
  #isUnavailable = false;
  /** the connection is half-open: the other side is gone, without a close */
  #isMute = false;
  /** the number of deliveries by kind: a test checks that there were enough */
  readonly counts: Record<string, number> = {};

  act([kind, a, b]: Action): void {
    const channels = [...this.#channels.values()];
    const channel = channels[a % Math.max(1, channels.length)];
    switch (kind) {
      case 'write':
        return this.#log.write(a, b);
      case 'up':
        return this.#receive();
      case 'down':
        return this.#arrive();
      case 'serve':
        return channel && this.#serve(channel);
      case 'pos':
        return this.#pos();
      case 'replicate':
        if (this.#socket !== null) this.#replica = Math.min(this.#log.length, this.#replica + 1 + (a % 5));
        return;
      case 'connect':
        return this.#connect(a);
      case 'timer':
        return this.#fire();
      case 'subscribe':
        return this.#subscribe(a, b);
      case 'unsubscribe':
        return this.#unsubscribe(a);
      case 'resync':
        return channel && this.#resync(channel, b % 2 === 0 ? 'retention' : 'shape');
      case 'drop':
        return this.#close(1006);
      case 'silence':
        this.#isMute = this.#socket !== null;
        this.#up = [];
        this.#down = [];
        this.#channels.clear();
        return;
      case 'drain':
        if (this.#socket !== null)
          this.#event({ type: 'frame', socket: this.#socket, frame: { type: 'drain', after_ms: a % 9_000 } });
        return this.#close(1012);
      case 'trim':
        this.#log.trim(a % 10);
        return;
      case 'fork':
        return this.#fork(a % 4);
      case 'unavailable':
        this.#isUnavailable = true;
        return;
      default:
        throw new Error(`no action ${kind}`);
    }
  }

  /** Everything works from now on: all members must become live and have every entry. */
  settle(): void {
    this.#isUnavailable = false;
    for (let round = 0; !this.#isSettled(); round++) {
      assert(round < 500, `the model does not settle: ${JSON.stringify([...this.#state.groups.values()], mapsToo)}`);
      for (const kind of ['connect', 'up', 'replicate', 'up', 'pos', 'down', 'down', 'down']) this.act([kind, 0, 0]);
      for (const channel of this.#channels.values()) for (let i = 0; i < 4; i++) this.#serve(channel);
      if (this.#socket === null || (this.#up.length === 0 && this.#down.length === 0)) this.#fire();
    }
    for (const member of this.#members.values()) {
      assert.equal(member.state, 'live');
      assert.equal(member.at, this.#log.length, 'a live member has everything');
      if (member.snapshot) assert.deepEqual(member.picture, this.#log.fold(member.table, this.#log.length));
    }
  }

  #isSettled(): boolean {
    const signsOfLife = ['ping', 'pong', 'pos'];
    const isQuiet = [...this.#up, ...this.#down].every(({ type }) => signsOfLife.includes(type));
    return isQuiet && [...this.#members.values()].every(({ state, at }) => state === 'live' && at === this.#log.length);
  }

  // ------------------------------------------------------------------------------------------ the server

  #connect(lag: number): void {
    const socket = this.#dialing;
    if (socket === null) return;
    this.#dialing = null;
    this.#socket = socket;
    this.#replica = Math.max(this.#log.floor, this.#log.length - (lag % 4));
    this.#event({ type: 'socket-open', socket });
  }

  #close(code: number): void {
    const socket = this.#socket;
    if (socket === null) return;
    this.#forget();
    this.#event({ type: 'socket-close', socket, code, reason: '' });
  }

  /** The database fails over, and the connection is lost. */
  #fork(lost: number): void {
    this.#close(1012);
    this.#dialing = null;
    this.#log.fork(lost);
    const { link } = this.#state;
    if (link.status === 'connecting')
      this.#event({ type: 'socket-close', socket: link.socket, code: 1006, reason: '' });
  }

  #forget(): void {
    this.#isMute = false;
    this.#socket = null;
    this.#up = [];
    this.#down = [];
    this.#channels.clear();
  }

  #receive(): void {
    const frame = this.#up.shift();
    if (!frame || this.#isMute) return;
    if (frame.type === 'hello') {
      this.#down.push({ type: 'welcome', node: 'model', ping_ms: 25_000, pos: this.#log.present(this.#replica) });
    } else if (frame.type === 'ping') {
      this.#down.push({ type: 'pong' });
    } else if (frame.type === 'unsubscribe') {
      assert(this.#channels.delete(frame.ch), 'a channel that is not there was left');
      this.#down.push({ type: 'ok', id: frame.id });
    } else if (frame.type === 'subscribe') {
      this.#open(frame);
    }
  }

  #open(frame: SubscribeFrame): void {
    const { id, table, from, snapshot = false } = frame;
    const ch = queryKey(frame);
    assert(!this.#channels.has(ch), 'ALREADY_SUBSCRIBED');
    if (this.#isUnavailable) {
      this.#isUnavailable = false;
      this.#down.push({ type: 'error', id, code: 'UNAVAILABLE', message: 'not now', retry: true });
      return;
    }
    const count = from === undefined ? this.#replica : this.#log.countOf(from);
    const channel: Channel = { ch, table, snapshot, pages: null, cursor: this.#replica, isLive: false };
    this.#channels.set(ch, channel);
    this.#down.push({ type: 'ok', id, ch, key: ['id'] });
    if (typeof count === 'string') this.#resync(channel, count);
    else if (from === undefined && snapshot) this.#read(channel);
    else channel.cursor = count;
  }

  #resync(channel: Channel, reason: 'epoch' | 'retention' | 'shape'): void {
    this.#down.push({ type: 'resync', ch: channel.ch, reason });
    channel.isLive = false;
    channel.cursor = this.#replica;
    if (channel.snapshot) this.#read(channel);
  }

  #read(channel: Channel): void {
    const rows = [...this.#log.fold(channel.table, this.#replica)].map(([id, value]) => ({ id, value }));
    channel.pages = [];
    for (let i = 0; i === 0 || i < rows.length; i += pageSize) channel.pages.push(rows.slice(i, i + pageSize));
    channel.cursor = this.#replica;
  }

  /** One step of a channel: a page, a change, or `live`. */
  #serve(channel: Channel): void {
    const { ch } = channel;
    const page = channel.pages?.shift();
    if (page) {
      const more = channel.pages!.length > 0;
      if (!more) channel.pages = null;
      this.#down.push({ type: 'rows', ch, rows: page, more });
      return;
    }
    while (channel.cursor < this.#replica) {
      const entry = this.#log.entries[channel.cursor++]!;
      if (entry.table !== channel.table) continue;
      const { table, action, id, value, tx } = entry;
      const effect = action === 'INSERT' ? 'add' : action === 'UPDATE' ? 'change' : 'remove';
      const data = effect === 'remove' ? {} : { data: { id, value } };
      const last = entry.last ? { last: true as const } : {};
      const pos = this.#log.posAt(channel.cursor);
      this.#down.push({ type: 'change', ch, effect, table, action, id, ...data, pos, tx, ...last });
      return;
    }
    // a client that comes from a replica ahead of this one waits until this one has caught up
    if (channel.isLive || channel.cursor > this.#replica) return;
    channel.isLive = true;
    this.#down.push({ type: 'live', ch, pos: this.#log.present(this.#replica) });
  }

  #pos(): void {
    const live = [...this.#channels.values()].filter(({ isLive }) => isLive);
    if (live.length > 0 && live.every(({ cursor }) => cursor >= this.#replica))
      this.#down.push({ type: 'pos', pos: this.#log.present(this.#replica) });
  }

  // ------------------------------------------------------------------------------------------ the client

  #arrive(): void {
    const frame = this.#down.shift();
    if (frame && this.#socket !== null) this.#event({ type: 'frame', socket: this.#socket, frame });
  }

  #fire(): void {
    const [first] = [...this.#timers].sort(([, a], [, b]) => a - b);
    if (!first) return;
    const [name, at] = first;
    this.#timers.delete(name);
    this.#now = Math.max(this.#now, at);
    this.#event({ type: 'timer', name });
  }

  #subscribe(a: number, b: number): void {
    if (this.#members.size >= 5) return;
    const snapshot = a % 2 === 0;
    const count = this.#log.floor + ((a >> 3) % Math.max(1, this.#log.length - this.#log.floor + 1));
    // from somewhere: only members that need no rows know what they have without having had a
    // picture
    const from = b % 3 === 0 ? this.#log.posAt(Math.min(this.#log.length, count)) : null;
    const at = from === null ? null : Math.min(this.#log.length, count);
    const table = tables[b % 2]!;
    const picture = at !== null && snapshot ? this.#log.fold(table, at) : null;
    const id = this.#nextMember++;
    this.#members.set(id, { id, table, snapshot, at, picture, settled: false, state: 'offline' });
    this.#event({ type: 'subscribe', member: id, query: { table }, from, snapshot });
    this.#event({ type: 'start' });
  }

  #unsubscribe(a: number): void {
    const member = [...this.#members.keys()][a % Math.max(1, this.#members.size)];
    if (member === undefined) return;
    this.#members.delete(member);
    this.#event({ type: 'unsubscribe', member });
  }

  #event(event: Event): void {
    const { state, effects } = reduce(this.#state, event, { now: this.#now, random: 0.5 });
    this.#state = state;
    for (const effect of effects) this.#run(effect);
  }

  #run(effect: Effect): void {
    if (effect.type === 'get-token') this.#event({ type: 'token', socket: effect.socket });
    else if (effect.type === 'connect') this.#dialing = effect.socket;
    else if (effect.type === 'send') this.#up.push(effect.frame);
    else if (effect.type === 'set-timer') this.#timers.set(effect.name, this.#now + effect.ms);
    else if (effect.type === 'clear-timer') this.#timers.delete(effect.name);
    else if (effect.type === 'deliver') this.#take(effect.member, effect.delivery);
    else if (effect.type === 'close-socket') {
      this.#dialing = null;
      this.#forget();
    } else if (effect.type === 'report') {
      // a violation of the protocol would be reported as well
      assert.match(effect.message, /^(a request was not answered within|no connection to Plank)/);
    } else assert.equal(effect.type, 'notify');
  }

  // ------------------------------------------------------------------------------------------ the members

  #take(id: number, delivery: Delivery): void {
    const member = this.#members.get(id);
    assert(member, 'a delivery without a member');
    this.counts[delivery.kind] = (this.counts[delivery.kind] ?? 0) + 1;
    switch (delivery.kind) {
      case 'state':
        member.state = delivery.state;
        if (delivery.state === 'live') member.settled = true;
        return;
      case 'resync':
        member.at = null;
        member.picture = null;
        return;
      case 'snapshot':
        assert(member.snapshot, 'rows for a member that wants none');
        assert(member.at === null || !member.settled, 'rows for a member that has its picture');
        member.settled = false;
        member.at = null;
        member.picture = new Map(delivery.rows.map((row) => [row.id as number, row.value as number]));
        return;
      case 'position':
        return this.#reach(member, delivery.pos, null);
      case 'change':
        return this.#reach(member, delivery.change.pos, delivery.change);
      default:
        assert.fail(JSON.stringify(delivery));
    }
  }

  /** Checks that every entry of the table up to here has come once, and that the picture equals the log's. */
  #reach(member: Member, pos: string, change: { effect: string; id: unknown; data?: Row | null } | null): void {
    const count = this.#log.countOf(pos);
    const to = count === 'retention' ? Number(pos.split('.')[1]) : count;
    assert(to !== 'epoch', `${pos} belongs to no history`);
    if (member.at === null)
      assert(member.snapshot ? member.picture : !change, 'a member begins with rows if it wants them');
    else {
      assert(change ? to > member.at : to >= member.at, `${pos} came at ${member.at}`);
      const missed = this.#log.entries
        .slice(member.at, change ? to - 1 : to)
        .filter(({ table }) => table === member.table);
      assert.equal(missed.length, 0, `${pos} came at ${member.at}`);
    }
    member.at = to;
    if (change && member.picture) {
      if (change.effect !== 'remove') member.picture.set(change.id as number, change.data!.value as number);
      else if (change.id === null) member.picture.clear();
      else member.picture.delete(change.id as number);
    }
    if (member.snapshot) assert.deepEqual(member.picture, this.#log.fold(member.table, to));
  }
}

function mapsToo(_name: string, value: unknown): unknown {
  return value instanceof Map ? [...value] : value;
}
