/**
 * Makes servers listen. `localhost` means both loopback addresses, because a browser or curl may try either of them
 * first. `::` means every address of this machine, IPv4 and IPv6.
 */
import { type AddressInfo, createServer, isIP, type Server } from 'node:net';

/** how often to try with another port: a port may be free on one loopback address and taken on the other */
const attempts = 5;

interface Where {
  host: string;
  port: number;
  /** the names of the settings, for error messages */
  settings: { host: string; port: string };
  backlog?: number;
}

/**
 * Resolves when connections are accepted. Returns the servers that must be closed besides `server`: a second server
 * that passes its connections on to `server`, or none. Rejects with an error of one line that names the setting.
 */
export async function listen(server: Server, where: Where): Promise<Server[]> {
  const { host, port } = where;
  if (host !== 'localhost') {
    // If IPv6 is disabled, listens on all IPv4 addresses instead.
    await open(server, where, host).catch((error: NodeJS.ErrnoException) => {
      if (host !== '::' || !isMissing(error)) throw explained(error, where);
      return open(server, where, '0.0.0.0');
    });
    return [];
  }
  for (let attempt = 1; ; attempt++) {
    await open(server, where, '127.0.0.1').catch((error: Error) => {
      throw explained(error, where);
    });
    const bound = (server.address() as AddressInfo).port;
    const second = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => server.emit('connection', socket));
    try {
      await open(second, { ...where, port: bound }, '::1');
      return [second];
    } catch (error) {
      if (isMissing(error as Error)) return [];
      await close(server);
      if (port !== 0 || attempt === attempts) throw explained(error as Error, where);
    }
  }
}

/** Stops listening. Resolves when the open connections have ended. */
export function close(server: Server): Promise<unknown> {
  return new Promise((resolve) => server.close(resolve));
}

/** Whether only programs on this machine can reach the address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

export const authOff =
  'clients are not authenticated (AUTH=off): everybody on this machine may read and write all attached tables';

export function openWarning(host: string): string {
  return `clients are not authenticated (AUTH=off): everybody who can reach this machine at ${host} (HOST) may read and write all attached tables`;
}

function open(server: Server, { port, backlog = 511 }: Where, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog, ipv6Only: host === '::1' }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Whether the error means that the machine has no such address. */
function isMissing(error: Error): boolean {
  return ['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'ENOTFOUND', 'EAI_AGAIN', 'EINVAL'].includes(
    (error as NodeJS.ErrnoException).code ?? '',
  );
}

function explained(cause: NodeJS.ErrnoException, { host, port, settings }: Where): Error {
  if (cause.code === 'EADDRINUSE')
    return new Error(`port ${port}: address already in use; set ${settings.port} to another one`, { cause });
  if (cause.code === 'EACCES')
    return new Error(`port ${port}: this user may not listen on it; set ${settings.port} to one above 1023`, { cause });
  if (isMissing(cause))
    return new Error(
      `${settings.host}: this machine has no address ${JSON.stringify(host)}; "localhost" is this machine only, "::" every address of it`,
      { cause },
    );
  return cause;
}
