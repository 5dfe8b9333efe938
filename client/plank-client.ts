/** What applications import as `plank-client` and pages as `/plank.js`: all of it is named here, and all else is the SDK's own. */
export type { Filter, ResyncReason, Row } from '../shared/wire.ts';
export type * from './api.ts';
export { PlankError } from './change-iterator.ts';
export { createPlank } from './client.ts';
export type { LiveQuery } from './live/query.ts';
export type { RowKey } from './live/rows.ts';
export type { SocketLike } from './socket.ts';
export type { Link } from './state/model.ts';
export type { SubscriptionState } from './state/stream.ts';
export { isTruncated } from './values/truncated.ts';
