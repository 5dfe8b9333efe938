/**
 * docker-compose.yml preloads this file. If NODE_NAME is not set, this file sets it to the container's name as people
 * see it: `gateway-2` for plank-gateway-2. The host name would be the container's id, which changes with each `up`.
 * Only Docker's DNS has the name.
 */
import { Resolver } from 'node:dns/promises';
import { networkInterfaces } from 'node:os';

if (!process.env.NODE_NAME) {
  const name = await containerName().catch(() => undefined);
  if (name !== undefined) process.env.NODE_NAME = name;
}

/**
 * Returns the container's name. If no DNS server answers within a second, returns undefined, and NODE_NAME defaults to
 * the host name.
 */
async function containerName(): Promise<string | undefined> {
  const own = Object.values(networkInterfaces())
    .flat()
    .find((address) => address !== undefined && !address.internal && address.family === 'IPv4');
  if (own === undefined) return undefined;
  // `reverse()` would stop at the empty answer of /etc/hosts
  const [found] = await new Resolver({ timeout: 1_000, tries: 1 }).resolvePtr(
    `${own.address.split('.').toReversed().join('.')}.in-addr.arpa`,
  );
  const container = found?.split('.')[0];
  return container === undefined ? undefined : (/[a-z]+-\d+$/.exec(container)?.[0] ?? container);
}
