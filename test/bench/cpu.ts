// Owns what processes have cost: user and system CPU time as the kernel counts it, from outside of them. Linux only, as are the
// benchmarks that use it: elsewhere it says so and ends.

import { readdirSync, readFileSync } from 'node:fs';

/** In /proc/<pid>/stat, a tick is a hundredth of a second on every Linux that Node runs on. */
const microsPerTick = 10_000;

export function requireProc(): void {
  if (process.platform !== 'linux') throw new Error('this benchmark reads /proc, which only Linux has');
}

/** User and system CPU time of these processes until now, in µs; without that of their children. */
export function cpuMicros(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuOf(pid), 0);
}

/** A process and the children that it has now: a server with its workers. */
export function withChildren(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return [pid, ...(children === '' ? [] : children.split(' ').map(Number))];
}

/** Resident memory in bytes. */
export function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kilobytes) * 1_024;
}

function cpuOf(pid: number): number {
  return scheduled(pid) ?? ticked(pid);
}

/** To the nanosecond, where the kernel has it; null where it does not. */
function scheduled(pid: number): number | null {
  try {
    let nanos = 0;
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      nanos += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    }
    return nanos > 0 ? nanos / 1_000 : null;
  } catch {
    return null;
  }
}

function ticked(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // the second field, the name, may hold spaces and parentheses
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * microsPerTick;
}
