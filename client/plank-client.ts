/**
 * The package `plank-client`, and `/plank.js` of each gateway: the whole API of the SDK. All else
 * is internal.
 */
export type { Filter, ResyncReason, Row } from '../shared/wire.ts';
export type * from './api.ts';
export { createPlank } from './client.ts';
export type { LiveQuery } from './live/query.ts';
export type { RowKey } from './live/rows.ts';
export type { SocketLike } from './socket.ts';
export type { SubscriptionState } from './state/delivery.ts';
export type { Link } from './state/model.ts';
export { PlankError } from './values/plank-error.ts';
export { isTruncated } from './values/truncated.ts';
