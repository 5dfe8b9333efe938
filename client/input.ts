/**
 * What an application gives to the SDK, checked before anything of it is sent or kept. What must stay true: nothing is dropped in silence. A
 * member that is `undefined`, a function or a Map would vanish from the JSON, and a filter without it admits more rows than were meant. All of
 * it throws a TypeError at once that names the place.
 */
import { type Filter, parsePosition } from '../shared/wire.ts';
import type { ChangesOptions, Handlers, LiveOptions, PlankOptions, SubscribeOptions } from './api.ts';
import type { Subject } from './values/canonical.ts';

/** deeper than any filter that a server takes */
const maxDepth = 32;

type Check = (value: unknown, path: string) => void;
/** by name: how each option is checked */
type Options<T> = { [Name in keyof Required<T>]: Check };

const where: Check = (value, path) => void plainFilter(value, path);

const columns: Check = (value, path) => {
  if (!Array.isArray(value)) throw no(path, value, 'must be a list of names');
  if (value.length === 0) throw no(path, value, 'is empty: leave it out to get all columns');
  plain(value, path, 0).forEach((name, i) => text(name, `${path}[${i}]`));
};

const text: Check = (value, path) => {
  if (typeof value !== 'string' || value === '') throw no(path, value, 'must be a text that is not empty');
};

const from: Check = (value, path) => {
  if (value === null) return;
  if (typeof value !== 'string' || parsePosition(value) === null) throw no(path, value, 'is no position');
};

const truth: Check = (value, path) => {
  if (typeof value !== 'boolean') throw no(path, value, 'must be true or false');
};

const count: Check = (value, path) => {
  if (!(Number.isInteger(value) || value === Number.POSITIVE_INFINITY) || (value as number) < 1)
    throw no(path, value, 'must be a whole number above 0');
};

const callable: Check = (value, path) => {
  if (typeof value !== 'function') throw no(path, value, 'must be a function');
};

const signal: Check = (value, path) => {
  if (typeof (value as AbortSignal | null)?.addEventListener !== 'function')
    throw no(path, value, 'must be an AbortSignal');
};

const address: Check = (value, path) => {
  if (typeof value !== 'string' && !(value instanceof URL)) throw no(path, value, 'must be a text or a URL');
};

const token: Check = (value, path) => {
  if (typeof value !== 'string' && typeof value !== 'function') throw no(path, value, 'must be a text or a function');
};

const plankOptions: Options<PlankOptions> = {
  url: address,
  token,
  answerTimeoutMs: count,
  WebSocket: callable,
  onError: callable,
};
const subscribeOptions: Options<SubscribeOptions> = { where, columns, snapshot: truth, from };
const changesOptions: Options<ChangesOptions> = { where, columns, from, bufferSize: count, signal };
const liveOptions: Options<LiveOptions> = { where, columns, key: columns, maxRows: count };
const handlers: Options<Handlers> = {
  onChange: callable,
  onSnapshot: callable,
  onResync: callable,
  onState: callable,
  onError: callable,
};

export const checkPlank = (given: unknown) => check<PlankOptions>(given, plankOptions, 'options');
export const checkSubscribe = (given: unknown) => check<SubscribeOptions>(given, subscribeOptions, 'options');
export const checkChanges = (given: unknown) => check<ChangesOptions>(given, changesOptions, 'options');
export const checkLiveOptions = (given: unknown) => check<LiveOptions>(given, liveOptions, 'options');
export const checkTable = (name: unknown) => text(name, 'table');

/** A handler that is not there is no mistake; one of a name that nobody calls is. */
export function checkHandlers(given: unknown): void {
  if (given === null || typeof given !== 'object') throw no('handlers', given, 'must be an object');
  for (const [name, value] of Object.entries(given)) {
    if (name in handlers ? value !== undefined : /^on[A-Za-z]/.test(name))
      (handlers[name as keyof Handlers] ?? unknownOption(handlers))(value, `handlers.${name}`);
  }
}

/** The first argument of `live`: an object with a `where` object, a `columns` or a `key` list counts as options, any other as the filter. */
export function checkLive(given: unknown, callback: unknown): LiveOptions {
  if (callback !== undefined) callable(callback, 'callback');
  const { where, columns, key } = (given ?? {}) as Record<string, unknown>;
  const isOptions = Array.isArray(columns) || Array.isArray(key) || (typeof where === 'object' && where !== null);
  if (isOptions) return checkLiveOptions(given);
  const filter = plainFilter(given, 'where');
  if (Object.hasOwn(filter, 'maxRows')) {
    const hint = 'write {where: {}, maxRows: …} for the option, or {"column:maxRows": …} for a column of that name';
    throw new TypeError(`live() takes an object without "where" for a filter, and "maxRows" is an option: ${hint}`);
  }
  return { where: filter };
}

/** What is asked for, as a copy that is JSON: what the application does to its objects later changes nothing. */
export function subjectOf(table: string, options: Pick<SubscribeOptions, 'where' | 'columns'>): Subject {
  return {
    table,
    ...(options.where === undefined ? {} : { where: plainFilter(options.where, 'where') }),
    ...(options.columns === undefined ? {} : { columns: [...options.columns] }),
  };
}

function check<T extends object>(given: unknown, known: Options<T>, what: string): T {
  if (!isPlainObject(given)) throw no(what, given, 'must be an object');
  for (const [name, value] of Object.entries(given)) {
    const judge = Object.hasOwn(known, name) ? known[name as keyof T] : unknownOption(known);
    if (value === undefined) throw no(name, value, 'leave it out where it is not wanted');
    judge(value, name);
  }
  return given as T;
}

const unknownOption =
  (known: object): Check =>
  (_value, path) => {
    throw new TypeError(`${path} is no option; there are ${Object.keys(known).join(', ')}`);
  };

function plainFilter(value: unknown, path: string): Filter {
  if (!isPlainObject(value)) throw no(path, value, 'must be an object, {} for every row');
  return plain(value, path, 0) as Filter;
}

/** A copy of what JSON can say; whole numbers beyond 2^53 as their digits, dates as ISO 8601. Throws for all else. */
function plain<T>(value: T, path: string, depth: number): T;
function plain(value: unknown, path: string, depth: number): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Date && !Number.isNaN(value.getTime())) return value.toISOString();
  if (depth > maxDepth) throw new TypeError(`${path} is nested too deeply`);
  if (Array.isArray(value)) {
    if (Object.keys(value).length !== value.length) throw no(path, value, 'is a list with gaps or names');
    return value.map((member, i) => plain(member, `${path}[${i}]`, depth + 1));
  }
  if (!isPlainObject(value)) throw no(path, value, 'is nothing that JSON can say');
  if (Object.getOwnPropertySymbols(value).length > 0) throw no(path, value, 'has a symbol for a name');
  if (Object.getOwnPropertyNames(value).length > Object.keys(value).length)
    throw no(path, value, 'has a member that is not enumerable');
  // as own members: one may be called __proto__
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, plain(member, `${path}.${name}`, depth + 1)]),
  );
}

/** Of this realm or another; neither an instance of a class nor something with a JSON of its own. */
function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) return false;
  return Object.prototype.toString.call(value) === '[object Object]' && !isCallable(value, 'toJSON');
}

const isCallable = (value: object, name: string) => typeof (value as Record<string, unknown>)[name] === 'function';

/** `where.owner is undefined: …` */
function no(path: string, value: unknown, why: string): TypeError {
  return new TypeError(`${path} is ${described(value)}: it ${why}`.replace(': it leave', ': leave'));
}

function described(value: unknown): string {
  if (value === null || value === undefined || typeof value === 'boolean') return String(value);
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'an invalid Date' : 'a Date';
  if (Array.isArray(value)) return 'a list';
  const { constructor } = value;
  return typeof constructor === 'function' && constructor !== Object ? `a ${constructor.name}` : 'an object';
}
