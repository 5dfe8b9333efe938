/**
 * Checks the arguments that an application passes to the SDK, before the SDK sends or keeps them. What must stay true:
 * no member is dropped in silence. JSON leaves out a member that is `undefined` or a function, and the entries of a
 * Map. The filter would then admit more rows than intended. So each such member throws a TypeError at once. The error
 * names the place: `where.owner is undefined: …`.
 */
import { type Filter, parsePosition } from '../shared/wire.ts';
import type { ChangesOptions, Handlers, LiveOptions, PlankOptions, SubscribeOptions } from './api.ts';
import type { RowQuery } from './values/row-query.ts';

/** deeper than any filter that a server accepts */
const maxDepth = 32;

type Check = (value: unknown, path: string) => void;
/** the check of each option, by the option's name */
type Options<T> = { [Name in keyof Required<T>]: Check };

const where: Check = (value, path) => void filterOf(value, path);

const columns: Check = (value, path) => {
  if (!Array.isArray(value)) throw invalid(path, value, 'it must be an array of column names');
  if (value.length === 0) throw invalid(path, value, 'it must not be empty; leave it out for all columns');
  jsonOf(value, path, 0).forEach((name, i) => text(name, `${path}[${i}]`));
};

const text: Check = (value, path) => {
  if (typeof value !== 'string' || value === '') throw invalid(path, value, 'it must be a string that is not empty');
};

const from: Check = (value, path) => {
  if (value === null) return;
  if (typeof value !== 'string' || parsePosition(value) === null)
    throw invalid(path, value, 'it must be a position, such as the `pos` of a change');
};

const boolean: Check = (value, path) => {
  if (typeof value !== 'boolean') throw invalid(path, value, 'it must be true or false');
};

const count: Check = (value, path) => {
  if (!(Number.isInteger(value) || value === Number.POSITIVE_INFINITY) || (value as number) < 1)
    throw invalid(path, value, 'it must be a whole number above 0');
};

const callable: Check = (value, path) => {
  if (typeof value !== 'function') throw invalid(path, value, 'it must be a function');
};

const signal: Check = (value, path) => {
  if (typeof (value as AbortSignal | null)?.addEventListener !== 'function')
    throw invalid(path, value, 'it must be an AbortSignal');
};

const address: Check = (value, path) => {
  if (typeof value !== 'string' && !(value instanceof URL)) throw invalid(path, value, 'it must be a string or a URL');
};

const token: Check = (value, path) => {
  if (typeof value !== 'string' && typeof value !== 'function')
    throw invalid(path, value, 'it must be a string or a function');
};

const plankOptions: Options<PlankOptions> = {
  url: address,
  token,
  answerTimeoutMs: count,
  WebSocket: callable,
  onError: callable,
};
const subscribeOptions: Options<SubscribeOptions> = { where, columns, snapshot: boolean, from };
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

/**
 * A handler may be `undefined`. A name such as `onchange` is refused, because the SDK would never call that function.
 */
export function checkHandlers(given: unknown): void {
  if (given === null || typeof given !== 'object') throw invalid('handlers', given, 'it must be an object');
  for (const [name, value] of Object.entries(given)) {
    if (name in handlers ? value !== undefined : /^on[A-Za-z]/.test(name))
      (handlers[name as keyof Handlers] ?? unknownName(handlers))(value, `handlers.${name}`);
  }
}

/**
 * Checks the first argument of `live`. If this object has a `where` object, a `columns` array or a `key` array, it is
 * taken as options; otherwise as the filter.
 */
export function checkLive(given: unknown, callback: unknown): LiveOptions {
  if (callback !== undefined) callable(callback, 'callback');
  const { where, columns, key } = (given ?? {}) as Record<string, unknown>;
  const isOptions = Array.isArray(columns) || Array.isArray(key) || (typeof where === 'object' && where !== null);
  if (isOptions) return checkLiveOptions(given);
  const filter = filterOf(given, 'where');
  if (Object.hasOwn(filter, 'maxRows')) {
    const hint = 'write {where: {}, maxRows: …} for the option, or {"column:maxRows": …} for a column of that name';
    throw new TypeError(`live() takes an object without "where" as a filter, but "maxRows" is an option: ${hint}`);
  }
  return { where: filter };
}

/** Copies the filter and the columns, so that the application may change its objects later. */
export function rowQueryOf(table: string, options: Pick<SubscribeOptions, 'where' | 'columns'>): RowQuery {
  return {
    table,
    ...(options.where === undefined ? {} : { where: filterOf(options.where, 'where') }),
    ...(options.columns === undefined ? {} : { columns: [...options.columns] }),
  };
}

function check<T extends object>(given: unknown, known: Options<T>, what: string): T {
  if (!isPlainObject(given)) throw invalid(what, given, 'it must be an object');
  for (const [name, value] of Object.entries(given)) {
    const checkOption = Object.hasOwn(known, name) ? known[name as keyof T] : unknownName(known);
    if (value === undefined) throw invalid(name, value, 'leave it out instead');
    checkOption(value, name);
  }
  return given as T;
}

const unknownName =
  (known: object): Check =>
  (_value, path) => {
    throw new TypeError(`${path} is unknown: use one of ${Object.keys(known).join(', ')}`);
  };

function filterOf(value: unknown, path: string): Filter {
  if (!isPlainObject(value)) throw invalid(path, value, 'it must be an object, {} for every row');
  return jsonOf(value, path, 0) as Filter;
}

/**
 * Returns a copy as JSON: a bigint as its digits, a Date as ISO 8601. If JSON cannot express a value, throws a
 * TypeError.
 */
function jsonOf<T>(value: T, path: string, depth: number): T;
function jsonOf(value: unknown, path: string, depth: number): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Date && !Number.isNaN(value.getTime())) return value.toISOString();
  if (depth > maxDepth) throw new TypeError(`${path} is nested too deeply: at most ${maxDepth} levels`);
  if (Array.isArray(value)) {
    if (Object.keys(value).length !== value.length)
      throw invalid(path, value, 'it must have no gaps and no named members');
    return value.map((member, i) => jsonOf(member, `${path}[${i}]`, depth + 1));
  }
  if (!isPlainObject(value)) throw invalid(path, value, 'JSON has no such value');
  if (Object.getOwnPropertySymbols(value).length > 0) throw invalid(path, value, 'none of its names may be a symbol');
  if (Object.getOwnPropertyNames(value).length > Object.keys(value).length)
    throw invalid(path, value, 'all its members must be enumerable');
  // `fromEntries` defines a member named __proto__; an assignment would set the prototype instead
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, jsonOf(member, `${path}.${name}`, depth + 1)]),
  );
}

/**
 * Whether a value is a plain object. A plain object may come from another realm (a frame). An instance of a class or an
 * object with `toJSON` is not plain.
 */
function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) return false;
  return Object.prototype.toString.call(value) === '[object Object]' && !isCallable(value, 'toJSON');
}

const isCallable = (value: object, name: string) => typeof (value as Record<string, unknown>)[name] === 'function';

/** Makes an error such as `where.owner is undefined: JSON has no such value`. */
function invalid(path: string, value: unknown, problem: string): TypeError {
  return new TypeError(`${path} is ${describe(value)}: ${problem}`);
}

function describe(value: unknown): string {
  if (value === null || value === undefined || typeof value === 'boolean') return String(value);
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'an invalid Date' : 'a Date';
  if (Array.isArray(value)) return 'an array';
  const { constructor } = value;
  return typeof constructor === 'function' && constructor !== Object ? `a ${constructor.name}` : 'an object';
}
