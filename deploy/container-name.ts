/**
 * Preloaded by docker-compose.yml. Sets NODE_NAME, if it is not set, to the container's name as people see it:
 * `gateway-2` for plank-gateway-2. The host name is the container's id, which changes with each `up`; only Docker's
 * DNS knows the name.
 */
import { Resolver } from 'node:dns/promises';
import { networkInterfaces } from 'node:os';

if (!process.env.NODE_NAME) {
  const name = await containerName().catch(() => undefined);
  if (name !== undefined) process.env.NODE_NAME = name;
}

/** Undefined if no DNS server answers within a second; NODE_NAME then defaults to the host name. */
async function containerName(): Promise<string | undefined> {
  const own = Object.values(networkInterfaces())
    .flat()
    .find((address) => address !== undefined && !address.internal && address.family === 'IPv4');
  if (own === undefined) return undefined;
  // not reverse(), which stops at the empty answer of /etc/hosts
  const [found] = await new Resolver({ timeout: 1_000, tries: 1 }).resolvePtr(
    `${own.address.split('.').toReversed().join('.')}.in-addr.arpa`,
  );
  const container = found?.split('.')[0];
  return container === undefined ? undefined : (/[a-z]+-\d+$/.exec(container)?.[0] ?? container);
}
