/** Examines this machine: how many connections a process may have. Assumes that gateways run on this machine. */
import { readFile } from 'node:fs/promises';
import { type Finding, note, ok, warning } from './finding.ts';

/** the number of open files that a gateway needs besides its clients: for Postgres, Redis and files */
const overhead = 200;

export async function* examineHost(maxConnections: number): AsyncGenerator<Finding> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const files = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  if (files === undefined) yield note('the limit of open files is not known on this system', 'see ulimit -n');
  else if (files !== 'unlimited' && Number(files) < maxConnections + overhead)
    yield warning(
      `a process may have ${files} open files here, but MAX_CONNECTIONS is ${maxConnections}`,
      'raise it where gateways and nginx run (ulimit -n, LimitNOFILE, nofile), or lower MAX_CONNECTIONS',
    );
  else yield ok(`a process may have ${files} open files here`);
  const backlog = Number(await readFile('/proc/sys/net/core/somaxconn', 'utf8').catch(() => Number.NaN));
  if (backlog < 1024)
    yield note(
      `only ${backlog} connections may wait to be accepted (net.core.somaxconn)`,
      'raise it to 4096: after a restart all clients reconnect at once',
    );
}
