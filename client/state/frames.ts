/**
 * Handles each frame of the server. A frame's `id` names the request that the frame belongs to, or the frame's `ch`
 * names the stream. If there is no such request or stream, the frame changes nothing.
 */
import type { ErrorFrame, ServerFrame } from '../../shared/wire.ts';
import { openConnection } from './connection.ts';
import { onSignOfLife, watch } from './liveness.ts';
import { onRenewed } from './renewal.ts';
import { addMember, onChange, onError, onOk, onPosition, onResync, onRows } from './stream.ts';
import { answerTimer, type Transition } from './transition.ts';

/** If handling the frame would corrupt rows, throws ProtocolViolation. */
export function onFrame(to: Transition, frame: ServerFrame): void {
  onSignOfLife(to, frame);
  const { link } = to.state;
  switch (frame.type) {
    case 'welcome':
      if (link.status !== 'opening') return;
      openConnection(to, link.socket, frame);
      return watch(to);
    case 'drain':
      if (link.status === 'open') to.set({ link: { ...link, returnAt: to.world.now + frame.after_ms } });
      return;
    case 'ok':
      to.clearTimer(answerTimer + frame.id);
      onRenewed(to, frame);
      return to.putOfRequest(frame.id, (group) => onOk(group, frame, to));
    case 'error':
      return onErrorFrame(to, frame);
    case 'rows':
      return to.putOfChannel(frame.ch, (group) => onRows(group, frame, to));
    case 'change':
      return to.putOfChannel(frame.ch, (group) => onChange(group, frame, to));
    case 'live':
      return to.putOfChannel(frame.ch, (group) => onPosition(group, frame.pos, true, to));
    case 'resync':
      return to.putOfChannel(frame.ch, (group) => onResync(group, frame, to));
    case 'pos':
      return to.putAll((group) => onPosition(group, frame.pos, false, to));
    default: // `pong`, or a frame of a later version: only a sign of life, which was handled above
  }
}

function onErrorFrame(to: Transition, frame: ErrorFrame): void {
  const { id, ch, code } = frame;
  if (id !== undefined) {
    to.clearTimer(answerTimer + id);
    if (code === 'ALREADY_SUBSCRIBED' && merge(to, id, ch)) return;
    return to.putOfRequest(id, (group) => onError(group, frame, to));
  }
  if (ch !== undefined) return to.putOfChannel(ch, (group) => onError(group, frame, to));
  to.report(`${code}: ${frame.message}`);
}

/**
 * Merges two groups that the server holds equal although their `queryKey` differs. If two such queries are subscribed,
 * the server refuses the second one and names the channel of the first one. Then the members of the refused group join
 * the group of that channel. Returns whether there were two such groups.
 */
function merge(to: Transition, request: number, ch: string | undefined): boolean {
  const groups = [...to.state.groups.values()];
  const known = groups.find(({ stream }) => 'ch' in stream && stream.ch === ch);
  const refused = groups.find(({ stream }) => stream.phase === 'requested' && stream.request === request);
  if (!known || !refused) return false;
  const others = new Map(to.state.groups);
  others.delete(refused.key);
  to.set({ groups: others });
  let merged = known;
  for (const { attached: _, state: __, ...member } of refused.members.values()) merged = addMember(merged, member, to);
  to.put(merged);
  return true;
}
