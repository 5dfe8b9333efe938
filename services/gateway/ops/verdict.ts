/**
 * Says in one sentence whether changes arrive, and lists what else needs an operator. It is a pure function
 * of what is known about all processes. Level `bad`: somewhere changes do not arrive. Level `wait`: changes
 * arrive, but something is not as it should be.
 */

export interface Picture {
  /** the replica that gathered this picture */
  self: string;
  /** for how long this replica has received nothing over the bus, in ms; 0: the bus works */
  deafMs: number;
  /** for how long Postgres has not answered this replica, in ms; 0: Postgres answers */
  postgresSilentMs: number;
  /** the state of the log; null: Postgres does not answer */
  log: {
    /** the listener with a valid lease */
    leader: string | null;
    /** for how long nothing has been drained although changes wait, in ms */
    waitingMs: number;
    /** how many changes wait */
    waiting: number;
  } | null;
  /** where gateways read changes: Redis, or the memory of a process that is listener and gateway in one */
  stream: 'redis' | 'memory';
  /** tables that are not captured as they should be, a sentence each */
  problems: readonly string[];
  listeners: readonly { node: string; silentMs: number }[];
  gateways: readonly {
    node: string;
    silentMs: number;
    ready: boolean;
    reason?: string | undefined;
    draining: boolean;
    /** for how long the gateway has read the log instead of the stream, in ms */
    readingMs: number;
    /** a canary of the leader has not come in time */
    canaryLate: boolean;
    /** why changes may not reach the gateway, as in its /health (freshness.ts); null: changes can reach it */
    staleReason: string | null;
    connections: number;
    slow: number;
    /** from capture to the socket over the last ten seconds, in ms; null: no changes came */
    p99: number | null;
    /** how long the last canary took, in ms; null: none has come */
    canaryMs: number | null;
  }[];
}

type Level = 'good' | 'wait' | 'bad';

export interface Verdict {
  level: Level;
  text: string;
  /** what to do; null: nothing */
  todo: string | null;
  /** other findings, the worst first */
  also: string[];
}

interface Finding {
  text: string;
  todo?: string;
}

const stuckMs = 1_500;
const lateMs = 1_000;
/** longer than the time for which a replica counts as fresh without a confirmation (freshness.ts) */
const knownMs = 5_000;
/** a replica that reads the log for longer than this is not just filling a gap */
export const readingLongMs = 2_500;

export function verdict(picture: Picture): Verdict {
  const bad = [...wholly(picture), ...badly(picture)];
  const wait = waiting(picture);
  const findings = [...bad, ...wait, ...speed(picture, bad.length + wait.length > 0)];
  const [first] = findings;
  if (first) {
    const { text, todo = null } = first;
    return { level: bad.length > 0 ? 'bad' : 'wait', text, todo, also: findings.slice(1).map((one) => one.text) };
  }
  const late = latest(picture);
  if (late !== null) return well(`changes arrive within ${duration(late)}`);
  const canary = Math.max(0, ...picture.gateways.map(({ canaryMs }) => canaryMs ?? 0));
  return well(`nothing changes${canary > 0 ? `, and would arrive within ${duration(canary)}` : ''}`);
}

const well = (how: string): Verdict => ({ level: 'good', text: `All is well: ${how}`, todo: null, also: [] });

/**
 * Whether changes can reach some replica, even if Postgres does not answer the replica that gathered the
 * picture.
 */
const isFresh = ({ gateways }: Picture) =>
  gateways.some(({ silentMs, staleReason }) => silentMs === 0 && staleReason === null);

/** The servers to look at when changes do not arrive. */
const servers = ({ stream }: Picture) => (stream === 'redis' ? ['Postgres', 'Redis'] : ['Postgres']);

/** The finding if changes arrive nowhere. There is at most one. */
function wholly(picture: Picture): Finding[] {
  const { log, deafMs, postgresSilentMs, listeners } = picture;
  if (postgresSilentMs > 0 && !isFresh(picture)) {
    return [
      {
        text: `Postgres does not answer: nobody can write, nothing changes (${duration(postgresSilentMs)})`,
        todo: 'Bring Postgres back, or the network between it and Plank. Everything else recovers by itself.',
      },
    ];
  }
  if (log && log.leader === null) {
    const there = listeners.filter(({ silentMs }) => silentMs === 0).map(({ node }) => node);
    const look = `what keeps a listener from reaching ${servers(picture).join(' or ')}?`;
    let todo = `Look at the log of ${listed(there)}: ${look}`;
    if (deafMs > 0) todo = `Look whether listeners are running, and at their logs: ${look}`;
    else if (there.length === 0) todo = 'Start a listener: none is running.';
    const text = `No listener leads: changes wait${log.waitingMs > 0 ? ` (${duration(log.waitingMs)})` : ''}`;
    return [{ text, todo: `${todo} Nothing is lost: waiting changes arrive as soon as a listener leads.` }];
  }
  if (log && log.waitingMs > stuckMs) {
    return [
      {
        text: `${log.leader} leads and drains nothing: ${number(log.waiting)} changes wait (${duration(log.waitingMs)})`,
        todo:
          `If ${log.leader} is dead, a standby takes over within seconds. ` +
          'Otherwise look at its log and at locks in Postgres, and restart it.',
      },
    ];
  }
  return [];
}

/** Findings if changes do not reach some replica, or changes of some table are not captured. */
function badly(picture: Picture): Finding[] {
  const found: Finding[] = [];
  const heard = picture.gateways.filter(({ silentMs }) => silentMs === 0);
  for (const { node, ready, draining, reason, staleReason } of heard) {
    if (ready || draining) continue;
    // if the replica is not ready because it is stale, the shorter reason is enough
    const why = staleReason !== null && reason?.endsWith(staleReason) ? staleReason : reason;
    found.push({
      text: `${node} gets no changes: ${why ?? 'no reason given'}`,
      todo:
        `Look at its log, and at its network to ${listed(servers(picture))}. ` +
        'While others are well, drain it: they take its clients.',
    });
  }
  // if changes arrive nowhere, one finding says so, and there are no further findings for single replicas
  const isCovered = wholly(picture).length > 0;
  if (!isCovered) found.push(...stale(picture, heard));
  const missing = heard.filter(({ canaryLate, ready }) => canaryLate && ready).map(({ node }) => node);
  if (missing.length > 0 && found.length === 0 && !isCovered) {
    found.push({
      text: `Changes are late or do not reach ${missing.join(', ')}: a canary is missing`,
      todo:
        missing.length === heard.length
          ? leaderTodo(picture)
          : `If it stays so, look at the log of ${listed(missing)}, and drain what is not well: others take its clients.`,
    });
  }
  const todo = 'Clients miss what is written meanwhile. Attach the table again: select plank.attach(…).';
  return [...found, ...picture.problems.map((text) => ({ text, todo }))];
}

const leaderTodo = (picture: Picture) =>
  `If it stays so, look at the log of the leading listener, at ${servers(picture).join(' and at ')}.`;

/** Findings for replicas whose clients may not get changes: one finding for each reason. */
function stale(picture: Picture, heard: Picture['gateways']): Finding[] {
  const nodes = new Map<string, string[]>();
  for (const { node, ready, draining, connections, staleReason } of heard) {
    if (staleReason === null || !(draining ? connections > 0 : ready)) continue;
    // replicas may count different seconds for the same outage, so the seconds are removed
    const reason = staleReason.replace(/ \(\d+ s\)$/, '');
    nodes.set(reason, [...(nodes.get(reason) ?? []), node]);
  }
  return [...nodes].map(([reason, of]) => ({
    text: `Changes may not reach ${listed(of)}: ${reason}`,
    todo:
      of.length === heard.length
        ? leaderTodo(picture)
        : `If it stays so, look at the log of ${listed(of)}, and drain what is not well: others take its clients.`,
  }));
}

/** Findings if changes arrive, but something is not as it should be. */
function waiting(picture: Picture): Finding[] {
  const { self, log, deafMs, postgresSilentMs, listeners, gateways } = picture;
  const found: Finding[] = [];
  if (postgresSilentMs > 0 && isFresh(picture)) {
    found.push({
      text: `Postgres does not answer ${self}: it serves no REST calls and no snapshots (${duration(postgresSilentMs)})`,
      todo:
        `Look at the network between ${self} and Postgres. ` +
        `If others reach Postgres, drain ${self}: they take its clients.`,
    });
  }
  if (deafMs > 0) {
    found.push(
      {
        text: `Redis does not answer: changes come from the log in Postgres (${duration(deafMs)})`,
        todo:
          `Bring Redis back, or the network between it and ${self}. ` +
          'Nothing is lost meanwhile, but it costs Postgres more.',
      },
      { text: `${self} cannot hear the others meanwhile: the counts here are its own` },
    );
  }
  for (const { node, silentMs } of listeners) {
    if (silentMs === 0) continue;
    const leads = log?.leader && log.leader !== node ? `${log.leader} leads. ` : '';
    const hasStandby = listeners.some((other) => other.silentMs === 0 && other.node !== log?.leader);
    const todo = `${leads}Start ${node} again, or look at its log.${hasStandby ? '' : ' Until then there is no standby.'}`;
    found.push({ text: `${node} does not answer (${duration(silentMs)})`, todo });
  }
  for (const { node, silentMs } of gateways) {
    if (silentMs === 0) continue;
    const todo = 'Start it again, or look at its log. Its clients connect to the others, and miss nothing.';
    found.push({ text: `${node} does not answer (${duration(silentMs)})`, todo });
  }
  const reading = gateways.filter(({ silentMs, readingMs }) => silentMs === 0 && readingMs >= readingLongMs);
  if (reading.length > 0 && deafMs === 0) {
    const who = listed(reading.map(({ node }) => node));
    const isInRedis = picture.stream === 'redis';
    const look = isInRedis ? 'Look at Redis: is it up, is its memory full? ' : '';
    const why = isInRedis ? 'Redis does not answer or lacks changes' : 'the stream in memory lacks changes';
    found.push({
      text: `${who} ${reading.length === 1 ? 'reads' : 'read'} the log in Postgres, because ${why}`,
      todo: `${look}Nothing is lost meanwhile, but it costs Postgres more.`,
    });
  }
  for (const { node, draining, connections, silentMs } of gateways) {
    if (!draining || silentMs > 0) continue;
    if (connections > 0) found.push({ text: `${node} drains: ${counted(connections, 'client')} left` });
    else found.push({ text: `${node} is drained and accepts no clients`, todo: 'Stop it, or undrain it below.' });
  }
  for (const { node, slow } of gateways) {
    if (slow === 0) continue;
    const text = `${counted(slow, 'client')} of ${node} ${slow === 1 ? 'reads' : 'read'} too slowly`;
    found.push({ text, todo: 'The slow clients of all gateways are listed below. No other client waits for them.' });
  }
  return found;
}

/** A finding if changes arrive late. If something else is wrong but changes arrive, a finding that says so. */
function speed(picture: Picture, isSomethingWrong: boolean): Finding[] {
  const late = latest(picture);
  if (late === null || wholly(picture).length > 0) return [];
  if (late > lateMs) {
    const todo =
      'This passes if something has just come back. ' +
      'Otherwise plank_commit_to_socket_seconds, by stage, shows where the time goes.';
    return [{ text: `Changes arrive late: within ${duration(late)}`, todo }];
  }
  if (!isSomethingWrong || badly(picture).length > 0) return [];
  // While Postgres has been silent for a short time only, the figures do not show yet whether changes
  // still arrive: replicas become stale only after some seconds.
  if (picture.postgresSilentMs > 0 && picture.postgresSilentMs < knownMs) return [];
  return [{ text: `Changes arrive all the same, within ${duration(late)}` }];
}

/** The p99 of the slowest replica. */
function latest({ gateways }: Picture): number | null {
  const known = gateways.flatMap(({ p99, silentMs }) => (p99 === null || silentMs > 0 ? [] : [p99]));
  return known.length === 0 ? null : Math.max(...known);
}

/** a list as text: a, b and c */
function listed(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
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
