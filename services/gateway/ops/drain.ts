/** `POST /ops/nodes/:node/drain` and `/undrain`: an operator's wish for any gateway, passed on over the roster. */
import { type Request, Router } from 'express';
import type { NodeStatus, Roster } from '#shared/bus/roster.ts';
import { PlankError } from '../http/errors.ts';
import { methodNotAllowed, named } from '../http/problems.ts';

/** What an operator should know before this replica is drained; null: others take its clients. */
export function drainWarning(nodes: readonly NodeStatus[], instance: string): string | null {
  const others = nodes.filter((node) => node.role === 'gateway' && node.instance !== instance);
  if (others.some(({ state }) => state['ready'] === true && state['draining'] === false)) return null;
  return 'No other replica takes clients: those of this one, and all who come, find nobody until it is undrained or another is there.';
}

/**
 * Each answers 202 with `{node, state, connections}`, a drain that leaves clients nowhere to go with a `warning` besides: what it
 * comes to is seen in the roster.
 */
export function drainRoutes(roster: Roster): Router {
  const router = Router();
  for (const wish of ['drain', 'undrain']) {
    const path = `/ops/nodes/:node/${wish}`;
    router
      .route(path)
      .all(named(path))
      .post(async (request: Request<{ node: string }>, response) => {
        response.status(202).json(await pass(roster, wish, request.params.node));
      })
      .all(methodNotAllowed('POST'));
  }
  return router;
}

async function pass(roster: Roster, wish: string, node: string): Promise<object> {
  const known = roster.nodes().filter((one) => one.node === node);
  // of one name, the last to start: a restarted process may be there twice for a moment
  const gateway = known.filter(({ role }) => role === 'gateway').sort((a, b) => b.startedAt - a.startedAt)[0];
  if (!gateway) {
    const isListener = known.length > 0;
    const why = isListener ? 'is a listener, and has no clients' : 'is not among the processes that can be heard';
    throw new PlankError(isListener ? 'INVALID' : 'NOT_FOUND', `${node} ${why}`);
  }
  const warning = wish === 'drain' ? drainWarning(roster.nodes(), gateway.instance) : null;
  const [answer] = await roster.ask(gateway.instance, wish);
  if (!answer) throw new PlankError('PEER', `${node} did not answer`);
  if (answer.error !== undefined) throw new PlankError('PEER', `${node}: ${answer.error}`);
  return { node, ...(answer.body as object), ...(warning === null ? {} : { warning }) };
}
