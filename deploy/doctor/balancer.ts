/**
 * Examines the balancer as clients reach it: whether a gateway answers through it, the WebSocket handshake and the
 * timeouts. Also examines whether the balancer exposes addresses that are for operators only.
 */
import type { IncomingMessage } from 'node:http';
import { WebSocket } from 'ws';
import { subprotocol } from '#shared/wire.ts';
import { type Finding, fault, note, ok, reason, span, warning } from './finding.ts';

const answerMs = 5_000;
/** how late a ping may be */
const slackMs = 5_000;

interface Wanted {
  /** where clients connect: https://live.example.org */
  url: string;
  /** the attached tables */
  tables: readonly string[];
  /** whether to wait for pings on a silent connection, which takes up to twice PING_INTERVAL_MS */
  patient: boolean;
  say: (text: string) => void;
}

export async function* examineBalancer({ url, tables, patient, say }: Wanted): AsyncGenerator<Finding> {
  const base = url.replace(/\/+$/, '');
  const health = await get(`${base}/health`);
  if ('error' in health) {
    yield fault(
      `${base} does not answer: ${health.error}`,
      'see whether nginx and the gateways run, and check the port',
    );
    return;
  }
  const state = parsed(health.text) as Health | null;
  if (typeof state?.node !== 'string' || typeof state.connections !== 'number') {
    yield isBalancerError(health)
      ? fault(`${base}/health answers ${health.status}: a balancer runs, but no gateway behind it`, 'start gateways')
      : fault(
          `something other than a gateway answers at ${base}: its /health answers ${health.status}, but not as Plank's does`,
          'check the address; if a balancer answers there, let it pass /health, /ws and /api on to the gateways',
        );
    return;
  }
  const { node, status, reason } = state;
  if (status === 'ok') yield ok(`${base} answers, through ${node}`);
  else yield fault(`${node} is degraded: ${reason ?? 'no reason given'}`, 'see its /health/ready and its log');
  yield* examineExposure(base);
  if (state.auth === 'jwt') {
    // without a token there may be no table to examine them with
    yield note(
      'event streams were not examined: the gateway asks for a token',
      'read one with a token: curl -N -H "Authorization: Bearer …"',
    );
    yield* examineHandshake(base, { tables: [], patient, say });
    return;
  }
  if (tables[0] !== undefined) yield* examineStreams(base, tables[0]);
  yield* examineHandshake(base, { tables, patient, say });
}

/** The answer of a gateway at /health. */
interface Health {
  status?: string;
  node?: string;
  connections?: number;
  auth?: string;
  /** why the gateway is degraded */
  reason?: string;
}

const isBalancerError = ({ status, type }: Answer) => [502, 503, 504].includes(status) && !/json/.test(type);

/**
 * The addresses that only operators should reach, and how to recognize their answers: a server may answer every address
 * with some page.
 */
const forOperators: Record<string, (answer: Answer) => boolean> = {
  '/metrics': ({ text }) => /^# HELP plank_/m.test(text),
  '/ops/nodes': ({ text }) => Array.isArray(parsed(text)),
  '/console': ({ text }) => text.includes('<title>Plank console</title>'),
};

async function* examineExposure(base: string): AsyncGenerator<Finding> {
  const open: string[] = [];
  for (const [path, isIt] of Object.entries(forOperators)) {
    const answer = await get(base + path);
    if (!('error' in answer) && answer.status < 400 && isIt(answer)) open.push(path);
  }
  if (open.length > 0)
    yield warning(
      `everybody who reaches ${base} can read ${open.join(', ')}`,
      'put the balancer of nginx.conf before the gateways: it serves none of these to the outside',
    );
  else yield ok('pages for operators are not reachable here');
}

/**
 * Examines event streams. Each change must arrive when it is written, and not when a buffer of the balancer is full.
 */
async function* examineStreams(base: string, table: string): AsyncGenerator<Finding> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), answerMs);
  try {
    const response = await fetch(`${base}/api/${table}/changes`, { signal: abort.signal });
    if (!response.ok) {
      yield fault(
        `the request for an event stream of ${table} is answered with ${response.status}`,
        'see the log of the balancer',
      );
      return;
    }
    const type = response.headers.get('content-type') ?? 'no type given';
    if (!type.startsWith('text/event-stream')) {
      yield fault(
        `something other than a gateway answers at /api/${table}/changes (${type})`,
        'let the balancer pass /api on to the gateways',
      );
      return;
    }
    await response.body!.getReader().read();
    yield ok('event streams arrive as they are written');
  } catch (error) {
    const says = abort.signal.aborted ? 'nothing of an event stream arrives within 5 s' : reason(error);
    yield fault(says, 'let the balancer pass on /api/…/changes without buffering (nginx: proxy_buffering off)');
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function* examineHandshake(base: string, { tables, patient, say }: Omit<Wanted, 'url'>): AsyncGenerator<Finding> {
  const url = `${base.replace(/^http/, 'ws')}/ws`;
  const advice = 'the balancer must pass on "Upgrade" and "Connection" over HTTP/1.1 on /ws, as nginx.conf does';
  const outcome = await shakeHands(url);
  if ('status' in outcome) {
    if (outcome.status === 403) yield fault('the handshake is refused: 403', 'check CORS_ORIGINS');
    else if (outcome.status === 429)
      yield warning('the handshake is refused: 429, too many connections', 'see limit_req in nginx.conf');
    else if (outcome.status === 503)
      yield fault('the handshake is refused: 503', 'every gateway is full or drained: add gateways, or undrain one');
    else if (outcome.status < 300)
      yield fault(
        `the WebSocket handshake is answered with ${outcome.status}, so something other than a gateway answers at /ws`,
        'let the balancer pass /ws on to the gateways',
      );
    else yield fault(`the WebSocket handshake is answered with ${outcome.status}`, advice);
    return;
  }
  if ('error' in outcome) {
    if (/subprotocol/.test(outcome.error))
      yield fault(
        `something other than a gateway takes WebSockets at /ws: ${outcome.error}`,
        'let the balancer pass /ws on to the gateways',
      );
    else yield fault(`a WebSocket cannot be opened: ${outcome.error}`, advice);
    return;
  }
  yield ok(`a WebSocket opens in ${span(outcome.ms)}, at ${outcome.node}`);
  if (!patient) {
    yield note('timeouts were not examined', 'run it without --quick, which takes two ping intervals longer');
    return;
  }
  const waitMs = 2 * outcome.pingMs + slackMs;
  say(`waiting up to ${span(waitMs)} for pings on a silent connection …`);
  const { kept, afterMs } = await awaitPings(url, tables[0], waitMs);
  if (kept) yield ok(`a silent connection is kept from ping to ping, every ${span(outcome.pingMs)}`);
  else
    yield fault(
      `a silent connection was cut after ${span(afterMs)}, before the next ping (every ${span(outcome.pingMs)})`,
      'raise the timeouts of all balancers and proxies above PING_INTERVAL_MS (nginx: proxy_read_timeout)',
    );
}

type Outcome = { ms: number; node: string; pingMs: number } | { status: number } | { error: string };

function shakeHands(url: string): Promise<Outcome> {
  const started = performance.now();
  const socket = new WebSocket(url, subprotocol, { handshakeTimeout: answerMs });
  return new Promise((resolve) => {
    const end = (outcome: Outcome) => {
      clearTimeout(timer);
      resolve(outcome);
      socket.terminate();
    };
    const timer = setTimeout(() => end({ error: 'no welcome within 5 s' }), answerMs);
    socket.on('unexpected-response', (_request, response: IncomingMessage) =>
      end({ status: response.statusCode ?? 0 }),
    );
    socket.on('error', (error) => end({ error: error.message }));
    socket.on('close', (code, why) => end({ error: `it is closed with ${code} ${why.toString()}` }));
    socket.on('open', () => socket.send('{"type":"hello"}'));
    socket.on('message', (data) => {
      const message = parsed((data as Buffer).toString()) as { type?: string; node?: string; ping_ms?: number } | null;
      if (message?.type === 'welcome')
        end({ ms: performance.now() - started, node: message.node ?? '?', pingMs: message.ping_ms ?? 25_000 });
    });
  });
}

/**
 * Waits for two pings on a connection without changes. The first ping may come at any moment; the second ping comes one
 * interval later.
 */
function awaitPings(
  url: string,
  table: string | undefined,
  waitMs: number,
): Promise<{ kept: boolean; afterMs: number }> {
  const socket = new WebSocket(`${url}?tables=${encodeURIComponent(table ?? '')}`, {
    handshakeTimeout: answerMs,
  });
  let lastPingAt = performance.now();
  let pings = 0;
  return new Promise((resolve) => {
    const end = (kept: boolean) => {
      clearTimeout(timer);
      resolve({ kept, afterMs: performance.now() - lastPingAt });
      socket.terminate();
    };
    const timer = setTimeout(() => end(false), waitMs);
    socket.on('open', () => {
      if (table !== undefined) socket.send(JSON.stringify({ action: 'unsubscribe', table }));
      lastPingAt = performance.now();
    });
    socket.on('ping', () => {
      lastPingAt = performance.now();
      if (++pings === 2) end(true);
    });
    socket.on('close', () => end(false));
    socket.on('error', () => end(false));
  });
}

interface Answer {
  status: number;
  /** the Content-Type */
  type: string;
  text: string;
}

async function get(url: string): Promise<Answer | { error: string }> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(answerMs), redirect: 'manual' });
    const type = response.headers.get('content-type') ?? '';
    return { status: response.status, type, text: await response.text() };
  } catch (error) {
    return { error: reason((error as { cause?: unknown }).cause ?? error) };
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
