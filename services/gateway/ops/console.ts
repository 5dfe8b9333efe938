/**
 * The operators' console on this replica: the data and actions of the page, and this replica's answers to
 * the consoles of other replicas. The page gets its data as an event stream, in which each event is a
 * whole view. So the stream needs no history. One replica serves the whole stream.
 */
import { type Request, type RequestHandler, Router } from 'express';
import type { Roster } from '#shared/bus/roster.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { Limiter } from '../bounds/limiter.ts';
import type { Clients } from '../clients/clients.ts';
import { invalidFields, PlankError } from '../http/errors.ts';
import { methodNotAllowed, named } from '../http/routes.ts';
import { explain, type OpsExplainDeps } from './explain.ts';
import { type ExplainDeps, explainHere, question } from './explain-gateway.ts';
import { LogFigures } from './log-figures.ts';
import { type ChannelsAnswer, OpsView } from './view.ts';

const defaultLimit = 100;
/** if a page has taken none of this many views in a row, it is gone or hangs, and its stream is cut */
const maxMissed = 30;
/**
 * at most this many searches of the outbox run at the same time, because each may read the whole outbox.
 * The pool for searches has as many connections.
 */
const maxExplains = 1;

interface ConsoleOptions extends ExplainDeps, OpsExplainDeps {
  /** for the queries that run once a second while a page is open, so that they do not wait for a search */
  watchPool: Pool;
  node: string;
  roster: Roster;
  clients: Clients;
}

export class Console {
  readonly #options: ConsoleOptions;
  readonly #view: OpsView;
  readonly #explains = new Limiter(maxExplains);

  constructor(options: ConsoleOptions) {
    this.#options = options;
    const { roster, watchPool, tail, catalog, node, clients } = options;
    this.#view = new OpsView({ roster, figures: new LogFigures(watchPool, tail), catalog, node });
    roster.handle('clients', ({ limit }) => ({ clients: clients.survey(Number(limit) || defaultLimit).clients }));
    roster.handle('channels', ({ limit }) => ({ channels: this.#channels(Number(limit) || defaultLimit) }));
    roster.handle('explain', (args) => explainHere(question.parse(args), options));
    roster.handle('disconnect', ({ id }) => {
      const client = clients.find(Number(id));
      client?.disconnect();
      return { found: client !== undefined };
    });
  }

  start(): void {
    this.#view.start();
  }

  stop(): void {
    this.#view.stop();
  }

  /** The routes of the console. The app must check access before them. */
  router(): Router {
    const router = Router();
    router
      .route('/ops/view')
      .all(named('/ops/view'))
      // without this, express would run the handler of GET for HEAD, and its stream has no end
      .head(methodNotAllowed('GET'))
      .get(this.#stream)
      .all(methodNotAllowed('GET'));
    router
      .route('/ops/status')
      .all(named('/ops/status'))
      .get(async (_request, response) => void response.json(await this.#view.status()))
      .all(methodNotAllowed('GET, HEAD'));
    router
      .route('/ops/explain')
      .all(named('/ops/explain'))
      .get(async (request, response) => {
        response.json(await this.#explains.run(() => explain(request.query, this.#options)));
      })
      .all(methodNotAllowed('GET, HEAD'));
    router
      .route('/ops/nodes/:node/connections/:id/disconnect')
      .all(named('/ops/nodes/:node/connections/:id/disconnect'))
      .post(async (request, response) => {
        await this.#disconnect(request);
        response.status(204).end();
      })
      .all(methodNotAllowed('POST'));
    return router;
  }

  /**
   * Sends one view a second, as server-sent events. While the page has not taken a view, later views are
   * left out.
   */
  readonly #stream: RequestHandler = (_request, response) => {
    let missed = 0;
    // without X-Accel-Buffering, nginx holds views back until its buffer is full
    response.type('text/event-stream').set('X-Accel-Buffering', 'no').write('retry: 1000\n\n');
    const end = this.#view.watch((view) => {
      missed = response.writableNeedDrain ? missed + 1 : 0;
      if (missed === 0) response.write(`data: ${view}\n\n`);
      else if (missed > maxMissed) response.destroy();
    });
    response.once('close', end);
  };

  async #disconnect(request: Request<{ node: string; id: string }>): Promise<void> {
    const { roster } = this.#options;
    const { node: name, id } = request.params;
    if (!/^\d{1,15}$/.test(id)) throw invalidFields([{ path: 'id', message: 'is not the number of a connection' }]);
    // the process that started last: for a moment after a restart, the roster has two processes of this
    // name
    const node = roster.nodes().findLast(({ role, ...status }) => role === 'gateway' && status.node === name);
    if (!node) throw new PlankError('NOT_FOUND', `No replica ${name} is running, or it does not answer`);
    const [answer] = await roster.ask(node.instance, 'disconnect', { id: Number(id) });
    if (!answer) throw new PlankError('UNAVAILABLE', `${name} does not answer`);
    const { found } = (answer.body ?? {}) as { found?: boolean };
    if (!found) throw new PlankError('NOT_FOUND', `${name} has no connection ${id}: it may have closed already`);
  }

  /** The channels with the most subscriptions, the largest first. */
  #channels(limit: number): ChannelsAnswer['channels'] {
    const channels = Array.from(this.#options.hub.channels);
    channels.sort((a, b) => b.members.size - a.members.size);
    return channels
      .slice(0, limit)
      .map((channel) => ({ name: channel.name, subscribers: channel.members.size, ...channel.describe() }));
  }
}
