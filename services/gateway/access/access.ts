/** What AUTH=jwt adds to a gateway: the identities of its clients, when these end, and limits for each user. */
import type { SharedState } from '#shared/bus/shared-state.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Expiries, type Expiring } from './expiries.ts';
import { Identities } from './identity.ts';
import { Limits } from './limits.ts';
import { Revocations } from './revocations.ts';
import { Tickets } from './tickets.ts';
import type { Identity } from './viewer.ts';

interface AccessDeps {
  pool: Pool;
  shared: SharedState;
  log: Log;
  metrics: GatewayMetrics;
}

export class Access {
  readonly identities: Identities;
  readonly expiries = new Expiries();
  readonly revocations: Revocations;
  readonly tickets: Tickets;
  readonly limits: Limits;

  /** Throws if the key in the settings cannot be used. */
  constructor(config: GatewayConfig, { pool, shared, log, metrics }: AccessDeps) {
    this.tickets = new Tickets(shared);
    this.limits = new Limits(config, shared, metrics);
    this.revocations = new Revocations({ pool, expiries: this.expiries, log });
    this.identities = new Identities(config, {
      revocations: this.revocations,
      tickets: this.tickets,
      limits: this.limits,
      log,
      metrics,
    });
  }

  /**
   * From now on, ends the client when this token expires or is revoked. Ends the client at once if the token was
   * revoked between the check of the token and this call.
   */
  admit(client: Expiring, identity: Identity): void {
    this.expiries.set(client, identity);
    if (!this.revocations.isRevoked(identity)) return;
    this.expiries.delete(client);
    client.expire('revoked');
  }
}
