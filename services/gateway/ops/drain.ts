/**
 * `POST /ops/nodes/:node/drain` and `/undrain`: an operator's command to any gateway. This gateway passes
 * the command on over the bus.
 */
import { type Request, Router } from 'express';
import { gatewaysIn } from '#shared/bus/node-state.ts';
import type { NodeStatus, Roster } from '#shared/bus/roster.ts';
import { PlankError } from '../http/errors.ts';
import { methodNotAllowed, named } from '../http/routes.ts';

/** The warning to show before the replica `instance` is drained; null: other replicas can take its clients. */
export function drainWarning(nodes: readonly NodeStatus[], instance: string): string | null {
  const others = gatewaysIn(nodes).filter((node) => node.instance !== instance);
  if (others.some(({ state }) => state.ready && !state.draining)) return null;
  return (
    'No other replica accepts clients: the clients of this one, and new ones, cannot connect ' +
    'until it is undrained or another replica starts.'
  );
}

/**
 * Both routes answer 202 with `{node, state, connections}`. The answer to `drain` also has a `warning` if
 * no other replica accepts clients. The roster shows the progress.
 */
export function drainRoutes(roster: Roster): Router {
  const router = Router();
  for (const command of ['drain', 'undrain']) {
    const path = `/ops/nodes/:node/${command}`;
    router
      .route(path)
      .all(named(path))
      .post(async (request: Request<{ node: string }>, response) => {
        response.status(202).json(await passOn(roster, command, request.params.node));
      })
      .all(methodNotAllowed('POST'));
  }
  return router;
}

async function passOn(roster: Roster, command: string, node: string): Promise<object> {
  const known = roster.nodes().filter((one) => one.node === node);
  // the process that started last: for a moment after a restart, the roster has two processes of this name
  const gateway = known.filter(({ role }) => role === 'gateway').sort((a, b) => b.startedAt - a.startedAt)[0];
  if (!gateway) {
    const isListener = known.length > 0;
    const why = isListener ? 'is a listener, and has no clients' : 'is not running, or cannot be heard over the bus';
    throw new PlankError(isListener ? 'INVALID' : 'NOT_FOUND', `${node} ${why}`);
  }
  const warning = command === 'drain' ? drainWarning(roster.nodes(), gateway.instance) : null;
  const [answer] = await roster.ask(gateway.instance, command);
  if (!answer) throw new PlankError('PEER', `${node} did not answer`);
  if (answer.error !== undefined) throw new PlankError('PEER', `${node}: ${answer.error}`);
  return { node, ...(answer.body as object), ...(warning === null ? {} : { warning }) };
}
