/** What clients meet: the balancer, the WebSocket handshake through it, its timeouts, and what it should keep to itself. */
import type { IncomingMessage } from 'node:http';
import { WebSocket } from 'ws';
import { subprotocol } from '#shared/wire.ts';
import { type Finding, fault, note, ok, reason, span, warning } from './finding.ts';

const answerMs = 5_000;
/** granted to a ping beyond its interval */
const slackMs = 5_000;

interface Wanted {
  /** as clients know it: https://live.example.org */
  url: string;
  /** the attached ones */
  tables: readonly string[];
  /** wait for pings on a silent connection, which takes up to twice PING_INTERVAL_MS */
  patient: boolean;
  say: (text: string) => void;
}

export async function* examineFront({ url, tables, patient, say }: Wanted): AsyncGenerator<Finding> {
  const base = url.replace(/\/+$/, '');
  const health = await get(`${base}/health`);
  if ('error' in health) {
    yield fault(`${base} does not answer: ${health.error}`, 'see whether nginx and the gateways run, and the port');
    return;
  }
  const state = parsed(health.text) as Health | null;
  if (typeof state?.node !== 'string' || typeof state.connections !== 'number') {
    yield isBalancers(health)
      ? fault(`${base}/health says ${health.status}: a balancer answers, and no gateway behind it`, 'start gateways')
      : fault(
          `something else than a gateway answers at ${base}: its /health says ${health.status}, and not what Plank's does`,
          'see the address, and whether what answers there is to pass /health, /ws and /api on to the gateways',
        );
    return;
  }
  const { node, status, reason } = state;
  if (status === 'ok') yield ok(`${base} answers, through ${node}`);
  else yield fault(`${node} is degraded: ${reason ?? 'it does not say why'}`, 'see its /health/ready and its log');
  yield* examineSecrets(base);
  if (tables[0] !== undefined) yield* examineStreams(base, tables[0]);
  yield* examineHandshake(base, { tables, patient, say });
}

/** What a gateway says at /health. */
interface Health {
  status?: string;
  node?: string;
  connections?: number;
  /** why it is degraded */
  reason?: string;
}

const isBalancers = ({ status, type }: Answer) => [502, 503, 504].includes(status) && !/json/.test(type);

/** What only an operator should be given, and by what it is known: a page for every address is none of it. */
const secrets: Record<string, (answer: Answer) => boolean> = {
  '/metrics': ({ text }) => /^# HELP plank_/m.test(text),
  '/ops/nodes': ({ text }) => Array.isArray(parsed(text)),
  '/console': ({ text }) => text.includes('<title>Plank console</title>'),
};

async function* examineSecrets(base: string): AsyncGenerator<Finding> {
  const open: string[] = [];
  for (const [path, isIt] of Object.entries(secrets)) {
    const answer = await get(base + path);
    if (!('error' in answer) && answer.status < 400 && isIt(answer)) open.push(path);
  }
  if (open.length > 0)
    yield warning(
      `${open.join(', ')} can be read by everybody who reaches ${base}`,
      'put the balancer of nginx.conf before the gateways: it keeps these from the outside',
    );
  else yield ok('what is for operators is not reachable here');
}

/** Event streams must come as they are written, not when a buffer is full. */
async function* examineStreams(base: string, table: string): AsyncGenerator<Finding> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), answerMs);
  try {
    const response = await fetch(`${base}/api/${table}/changes`, { signal: abort.signal });
    if (!response.ok) {
      yield fault(`an event stream of ${table} is answered by ${response.status}`, 'see the balancer');
      return;
    }
    const type = response.headers.get('content-type') ?? 'nothing said';
    if (!type.startsWith('text/event-stream')) {
      yield fault(
        `/api/${table}/changes is answered by something else than a gateway (${type})`,
        'let the balancer pass /api on to the gateways',
      );
      return;
    }
    await response.body!.getReader().read();
    yield ok('event streams arrive as they are written');
  } catch (error) {
    const says = abort.signal.aborted ? 'nothing of an event stream arrives within 5 s' : reason(error);
    yield fault(says, 'let the balancer pass answers of /api/…/changes on as they come (nginx: proxy_buffering off)');
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function* examineHandshake(base: string, { tables, patient, say }: Omit<Wanted, 'url'>): AsyncGenerator<Finding> {
  const url = `${base.replace(/^http/, 'ws')}/ws`;
  const advice = 'the balancer must pass on "Upgrade" and "Connection" over HTTP/1.1 on /ws, as nginx.conf does';
  const met = await shakeHands(url);
  if ('status' in met) {
    if (met.status === 403) yield fault('the handshake is refused: 403', 'see CORS_ORIGINS');
    else if (met.status === 429)
      yield warning('the handshake is refused: 429, too many', 'see limit_req in nginx.conf');
    else if (met.status === 503)
      yield fault('the handshake is refused: 503', 'no replica takes connections: all drain or are full');
    else if (met.status < 300)
      yield fault(
        `the handshake of a WebSocket is answered by ${met.status}, as no gateway does: something else answers at /ws`,
        'let the balancer pass /ws on to the gateways',
      );
    else yield fault(`the handshake of a WebSocket is answered by ${met.status}`, advice);
    return;
  }
  if ('error' in met) {
    if (/subprotocol/.test(met.error))
      yield fault(
        `something else than a gateway takes WebSockets at /ws: ${met.error}`,
        'let the balancer pass /ws on to the gateways',
      );
    else yield fault(`a WebSocket cannot be opened: ${met.error}`, advice);
    return;
  }
  yield ok(`a WebSocket opens in ${span(met.ms)}, at ${met.node}`);
  if (!patient) {
    yield note('timeouts were not examined', 'leave out --quick: it takes two intervals of pings');
    return;
  }
  const waitMs = 2 * met.pingMs + slackMs;
  say(`waiting up to ${span(waitMs)} for pings on a silent connection …`);
  const { kept, afterMs } = await awaitPings(url, tables[0], waitMs);
  if (kept) yield ok(`a silent connection is kept from ping to ping, each ${span(met.pingMs)}`);
  else
    yield fault(
      `a silent connection was cut after ${span(afterMs)} of silence, before the ping that comes each ${span(met.pingMs)}`,
      'let the timeouts of everything between be longer than PING_INTERVAL_MS (nginx: proxy_read_timeout)',
    );
}

type Met = { ms: number; node: string; pingMs: number } | { status: number } | { error: string };

function shakeHands(url: string): Promise<Met> {
  const started = performance.now();
  const socket = new WebSocket(url, subprotocol, { handshakeTimeout: answerMs });
  return new Promise((resolve) => {
    const end = (met: Met) => {
      clearTimeout(timer);
      resolve(met);
      socket.terminate();
    };
    const timer = setTimeout(() => end({ error: 'it does not greet within 5 s' }), answerMs);
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

/** On a connection that is told nothing; the first ping may come at any moment, the second one an interval later. */
function awaitPings(
  url: string,
  table: string | undefined,
  waitMs: number,
): Promise<{ kept: boolean; afterMs: number }> {
  const socket = new WebSocket(table === undefined ? url : `${url}?tables=${encodeURIComponent(table)}`, {
    handshakeTimeout: answerMs,
  });
  let heardAt = performance.now();
  let pings = 0;
  return new Promise((resolve) => {
    const end = (kept: boolean) => {
      clearTimeout(timer);
      resolve({ kept, afterMs: performance.now() - heardAt });
      socket.terminate();
    };
    const timer = setTimeout(() => end(false), waitMs);
    socket.on('open', () => {
      if (table !== undefined) socket.send(JSON.stringify({ action: 'unsubscribe', table }));
      heardAt = performance.now();
    });
    socket.on('ping', () => {
      heardAt = performance.now();
      if (++pings === 2) end(true);
    });
    socket.on('close', () => end(false));
    socket.on('error', () => end(false));
  });
}

interface Answer {
  status: number;
  /** its Content-Type */
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
