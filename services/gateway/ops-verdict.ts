/**
 * Whether changes arrive, in one sentence, and what else an operator should look at. Pure: from what is known of all processes to
 * words. `bad`: changes do not arrive, somewhere. `wait`: they do, and something is not as it should be.
 */

export interface Picture {
  /** the replica that looks */
  self: string;
  /** for how long it has heard nobody over the bus; 0: it hears */
  deafMs: number;
  /** for how long Postgres has not answered it; 0: it answers */
  postgresSilentMs: number;
  /** what Postgres says, where it answers */
  log: {
    /** who holds a valid lease */
    leader: string | null;
    /** for how long nothing has been drained while something waits */
    waitingMs: number;
    waiting: number;
  } | null;
  /** what is wrong with the capture of tables, in words */
  problems: readonly string[];
  listeners: readonly { node: string; silentMs: number }[];
  gateways: readonly {
    node: string;
    silentMs: number;
    ready: boolean;
    reason?: string | undefined;
    draining: boolean;
    /** for how long it has read the log instead of the stream */
    readingMs: number;
    /** a marker that the leader committed has not come in time */
    canaryLate: boolean;
    connections: number;
    slow: number;
    /** of the last seconds, in ms; null: nothing has changed */
    p99: number | null;
    /** how long the last canary took */
    canaryMs: number | null;
  }[];
}

type Level = 'good' | 'wait' | 'bad';

export interface Verdict {
  level: Level;
  text: string;
  /** what else is to be said, the worst first */
  also: string[];
}

const stuckMs = 1_500;
const lateMs = 1_000;
/** who reads the log for longer is not just filling a gap */
export const readingLongMs = 2_500;

export function verdict(picture: Picture): Verdict {
  const said = findings(picture);
  const [first] = said;
  if (first) return { level: first.level, text: first.text, also: said.slice(1).map(({ text }) => text) };
  const late = latest(picture);
  if (late !== null) return { level: 'good', text: `All is well: changes arrive within ${duration(late)}`, also: [] };
  const canary = Math.max(0, ...picture.gateways.map(({ canaryMs }) => canaryMs ?? 0));
  const would = canary > 0 ? `, and would arrive within ${duration(canary)}` : '';
  return { level: 'good', text: `All is well: nothing changes${would}`, also: [] };
}

function findings(picture: Picture): { level: Level; text: string }[] {
  const bad: string[] = [];
  const wait: string[] = [];
  const { self, log, deafMs } = picture;
  if (picture.postgresSilentMs > 0)
    bad.push(`Postgres does not answer: nobody can write, nothing changes (${duration(picture.postgresSilentMs)})`);
  else if (log && log.leader === null)
    bad.push(`No listener leads: changes wait${log.waitingMs > 0 ? ` (${duration(log.waitingMs)})` : ''}`);
  else if (log && log.waitingMs > stuckMs)
    bad.push(
      `${log.leader} leads and drains nothing: ${number(log.waiting)} changes wait (${duration(log.waitingMs)})`,
    );
  for (const { node, ready, draining, silentMs, reason } of picture.gateways)
    if (!ready && !draining && silentMs === 0) bad.push(`${node} gets no changes: ${reason ?? 'it says not why'}`);
  const missing = picture.gateways.filter(({ canaryLate, ready, silentMs }) => canaryLate && ready && silentMs === 0);
  // where nobody leads, that says it
  if (missing.length > 0 && bad.length === 0)
    bad.push(`Changes are late or do not come to ${missing.map(({ node }) => node).join(', ')}: a canary is missing`);
  bad.push(...picture.problems);

  if (deafMs > 0) {
    wait.push(
      `Redis does not answer: ${self} reads changes from the log in Postgres, and hears nothing of the other replicas (${duration(deafMs)})`,
    );
  }
  for (const { node, silentMs } of [...picture.listeners, ...picture.gateways])
    if (silentMs > 0) wait.push(`${node} does not answer (${duration(silentMs)})`);
  const reading = picture.gateways.filter(({ silentMs, readingMs }) => silentMs === 0 && readingMs >= readingLongMs);
  if (reading.length > 0 && deafMs === 0)
    wait.push(`${names(reading)} the log in Postgres, because Redis does not answer or lacks changes`);
  for (const { node, draining, connections, silentMs } of picture.gateways) {
    if (!draining || silentMs > 0) continue;
    wait.push(
      connections === 0
        ? `${node} is drained and takes no clients`
        : `${node} drains: ${counted(connections, 'client')} left`,
    );
  }
  for (const { node, slow } of picture.gateways)
    if (slow > 0) wait.push(`${counted(slow, 'client')} of ${node} ${slow === 1 ? 'reads' : 'read'} too slowly`);
  const late = latest(picture);
  if (late !== null && late > lateMs) wait.push(`Changes arrive late: within ${duration(late)}`);
  else if (late !== null && bad.length === 0 && wait.length > 0)
    wait.push(`Changes arrive all the same, within ${duration(late)}`);
  return [
    ...bad.map((text) => ({ level: 'bad' as const, text })),
    ...wait.map((text) => ({ level: 'wait' as const, text })),
  ];
}

/** The slowest replica's. */
function latest({ gateways }: Picture): number | null {
  const known = gateways.flatMap(({ p99, silentMs }) => (p99 === null || silentMs > 0 ? [] : [p99]));
  return known.length === 0 ? null : Math.max(...known);
}

function names(gateways: readonly { node: string }[]): string {
  if (gateways.length === 1) return `${gateways[0]!.node} reads`;
  const all = gateways.map(({ node }) => node);
  return `${all.slice(0, -1).join(', ')} and ${all.at(-1)} read`;
}

const number = (value: number) => value.toLocaleString('en');
const counted = (count: number, what: string) => `${number(count)} ${what}${count === 1 ? '' : 's'}`;

/** 4 ms, 1.2 s, 12 s, 3 min, 2 h */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.max(1, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1_000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}
