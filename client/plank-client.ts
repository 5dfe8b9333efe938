/**
 * The whole API of the SDK. This file is the entry of the package `plank-client` and of `/plank.js` on each
 * gateway. Everything that is not exported here is internal.
 */
export type { Filter, ResyncReason, Row } from '../shared/wire.ts';
export type * from './api.ts';
export { createPlank } from './client.ts';
export type { LiveQuery } from './live/query.ts';
export type { RowKey } from './live/rows.ts';
export type { SocketLike } from './socket.ts';
export type { SubscriptionState } from './state/delivery.ts';
export type { Link, Viewer } from './state/model.ts';
export { PlankError } from './values/plank-error.ts';
export { isTruncated } from './values/truncated.ts';
