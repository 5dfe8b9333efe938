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
    /** why changes may not reach it, as its /health says (freshness.ts); null: they can */
    staleReason: string | null;
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
  /** what to do about it; null: nothing */
  todo: string | null;
  /** what else is to be said, the worst first */
  also: string[];
}

interface Finding {
  text: string;
  todo?: string;
}

const stuckMs = 1_500;
const lateMs = 1_000;
/** longer than a replica stays fresh without a confirmation (freshness.ts) */
const knownMs = 5_000;
/** who reads the log for longer is not just filling a gap */
export const readingLongMs = 2_500;

export function verdict(picture: Picture): Verdict {
  const bad = [...wholly(picture), ...badly(picture)];
  const wait = waiting(picture);
  const said = [...bad, ...wait, ...speed(picture, bad.length + wait.length > 0)];
  const [first] = said;
  if (first) {
    const { text, todo = null } = first;
    return { level: bad.length > 0 ? 'bad' : 'wait', text, todo, also: said.slice(1).map((one) => one.text) };
  }
  const late = latest(picture);
  if (late !== null) return well(`changes arrive within ${duration(late)}`);
  const canary = Math.max(0, ...picture.gateways.map(({ canaryMs }) => canaryMs ?? 0));
  return well(`nothing changes${canary > 0 ? `, and would arrive within ${duration(canary)}` : ''}`);
}

const well = (how: string): Verdict => ({ level: 'good', text: `All is well: ${how}`, todo: null, also: [] });

/** Whether changes can reach anybody, whoever answers the replica that looks. */
const isFresh = ({ gateways }: Picture) =>
  gateways.some(({ silentMs, staleReason }) => silentMs === 0 && staleReason === null);

/** Nothing arrives anywhere; one of these at most. */
function wholly(picture: Picture): Finding[] {
  const { log, deafMs, postgresSilentMs, listeners } = picture;
  if (postgresSilentMs > 0 && !isFresh(picture)) {
    return [
      {
        text: `Postgres does not answer: nobody can write, nothing changes (${duration(postgresSilentMs)})`,
        todo: 'Bring Postgres back, or the network between it and Plank. Everything else goes on by itself then.',
      },
    ];
  }
  if (log && log.leader === null) {
    const there = listeners.filter(({ silentMs }) => silentMs === 0).map(({ node }) => node);
    const look = 'what keeps a listener from Postgres or Redis?';
    let todo = `Look at the log of ${listed(there)}: ${look}`;
    if (deafMs > 0) todo = `Look whether listeners are running, and at their logs: ${look}`;
    else if (there.length === 0) todo = 'Start a listener: none is running.';
    const text = `No listener leads: changes wait${log.waitingMs > 0 ? ` (${duration(log.waitingMs)})` : ''}`;
    return [{ text, todo: `${todo} Nothing is lost: what waits arrives as soon as one leads.` }];
  }
  if (log && log.waitingMs > stuckMs) {
    return [
      {
        text: `${log.leader} leads and drains nothing: ${number(log.waiting)} changes wait (${duration(log.waitingMs)})`,
        todo: `A standby takes over within seconds where ${log.leader} is dead. Otherwise look at its log and at locks in Postgres, and restart it.`,
      },
    ];
  }
  return [];
}

/** Changes do not arrive somewhere, or not those of some table. */
function badly(picture: Picture): Finding[] {
  const found: Finding[] = [];
  const heard = picture.gateways.filter(({ silentMs }) => silentMs === 0);
  for (const { node, ready, draining, reason, staleReason } of heard) {
    if (ready || draining) continue;
    // where it is not ready for being stale, that is said shorter
    const why = staleReason !== null && reason?.endsWith(staleReason) ? staleReason : reason;
    found.push({
      text: `${node} gets no changes: ${why ?? 'it says not why'}`,
      todo: `Look at its log, and at its way to Redis and to Postgres. While others are well, drain it: they take its clients.`,
    });
  }
  // where nothing arrives anywhere, that says it
  const isSaid = wholly(picture).length > 0;
  if (!isSaid) found.push(...stale(heard));
  const missing = heard.filter(({ canaryLate, ready }) => canaryLate && ready).map(({ node }) => node);
  if (missing.length > 0 && found.length === 0 && !isSaid) {
    found.push({
      text: `Changes are late or do not come to ${missing.join(', ')}: a canary is missing`,
      todo:
        missing.length === heard.length
          ? 'If it stays so, look at the log of the leading listener, at Postgres and at Redis.'
          : `If it stays so, look at the log of ${listed(missing)}, and drain what is not well: others take its clients.`,
    });
  }
  const todo = 'What is written meanwhile is lost to clients. Attach the table anew: select plank.attach(…).';
  return [...found, ...picture.problems.map((text) => ({ text, todo }))];
}

/** Replicas that take clients, or still have some, and may not get changes: a sentence for each reason. */
function stale(heard: Picture['gateways']): Finding[] {
  const nodes = new Map<string, string[]>();
  for (const { node, ready, draining, connections, staleReason } of heard) {
    if (staleReason === null || !(draining ? connections > 0 : ready)) continue;
    // two replicas count the seconds of one trouble differently
    const reason = staleReason.replace(/ \(\d+ s\)$/, '');
    nodes.set(reason, [...(nodes.get(reason) ?? []), node]);
  }
  return [...nodes].map(([reason, of]) => ({
    text: `Changes may not reach ${listed(of)}: ${reason}`,
    todo:
      of.length === heard.length
        ? 'If it stays so, look at the log of the leading listener, at Postgres and at Redis.'
        : `If it stays so, look at the log of ${listed(of)}, and drain what is not well: others take its clients.`,
  }));
}

/** Changes arrive, and something is not as it should be. */
function waiting(picture: Picture): Finding[] {
  const { self, log, deafMs, postgresSilentMs, listeners, gateways } = picture;
  const found: Finding[] = [];
  if (postgresSilentMs > 0 && isFresh(picture)) {
    found.push({
      text: `Postgres does not answer ${self}: it serves no REST calls and no snapshots (${duration(postgresSilentMs)})`,
      todo: `Look at the way between ${self} and Postgres. If others reach it, drain ${self}: they take its clients.`,
    });
  }
  if (deafMs > 0) {
    found.push(
      {
        text: `Redis does not answer: changes come from the log in Postgres (${duration(deafMs)})`,
        todo: `Bring Redis back, or the network between it and ${self}. Nothing is lost meanwhile, but it costs Postgres more.`,
      },
      { text: `${self} hears nothing of the others meanwhile: what is counted here is its own` },
    );
  }
  for (const { node, silentMs } of listeners) {
    if (silentMs === 0) continue;
    const leads = log?.leader && log.leader !== node ? `${log.leader} leads meanwhile. ` : '';
    const hasStandby = listeners.some((other) => other.silentMs === 0 && other.node !== log?.leader);
    const todo = `${leads}Start ${node} again, or look at its log.${hasStandby ? '' : ' Until then nobody stands by.'}`;
    found.push({ text: `${node} does not answer (${duration(silentMs)})`, todo });
  }
  for (const { node, silentMs } of gateways) {
    if (silentMs === 0) continue;
    const todo = 'Start it again, or look at its log. Clients that notice go to the others, and miss nothing.';
    found.push({ text: `${node} does not answer (${duration(silentMs)})`, todo });
  }
  const reading = gateways.filter(({ silentMs, readingMs }) => silentMs === 0 && readingMs >= readingLongMs);
  if (reading.length > 0 && deafMs === 0) {
    const who = listed(reading.map(({ node }) => node));
    found.push({
      text: `${who} ${reading.length === 1 ? 'reads' : 'read'} the log in Postgres, because Redis does not answer or lacks changes`,
      todo: 'Look at Redis: is it up, is its memory full? Nothing is lost meanwhile, but it costs Postgres more.',
    });
  }
  for (const { node, draining, connections, silentMs } of gateways) {
    if (!draining || silentMs > 0) continue;
    if (connections > 0) found.push({ text: `${node} drains: ${counted(connections, 'client')} left` });
    else found.push({ text: `${node} is drained and takes no clients`, todo: 'Stop it, or undrain it below.' });
  }
  for (const { node, slow } of gateways) {
    if (slow === 0) continue;
    const text = `${counted(slow, 'client')} of ${node} ${slow === 1 ? 'reads' : 'read'} too slowly`;
    found.push({ text, todo: 'Those of all gateways are listed below. Nobody else waits for them.' });
  }
  return found;
}

/** How fast changes arrive, where that is to be said besides. */
function speed(picture: Picture, isSomethingWrong: boolean): Finding[] {
  const late = latest(picture);
  if (late === null || wholly(picture).length > 0) return [];
  if (late > lateMs) {
    const todo =
      'It passes if something just came back. Otherwise plank_commit_to_socket_seconds, by stage, says where the time goes.';
    return [{ text: `Changes arrive late: within ${duration(late)}`, todo }];
  }
  if (!isSomethingWrong || badly(picture).length > 0) return [];
  // whether they do without Postgres is not known before its silence would have made the replica stale
  if (picture.postgresSilentMs > 0 && picture.postgresSilentMs < knownMs) return [];
  return [{ text: `Changes arrive all the same, within ${duration(late)}` }];
}

/** The slowest replica's. */
function latest({ gateways }: Picture): number | null {
  const known = gateways.flatMap(({ p99, silentMs }) => (p99 === null || silentMs > 0 ? [] : [p99]));
  return known.length === 0 ? null : Math.max(...known);
}

/** a, b and c */
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
