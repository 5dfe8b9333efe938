// Owns how a torture run asks Postgres while faults are inflicted on it.

import { setTimeout as delay } from 'node:timers/promises';
import { admin } from '../support/servers/admin.ts';

/** of one statement: crash recovery under load takes tens of seconds */
const patienceMs = 60_000;

/** The rows of one statement, which is tried again while a lock cannot be had or Postgres does not serve. */
export async function insist(databaseUrl: string, sql: string): Promise<Record<string, string>[]> {
  const started = performance.now();
  for (;;) {
    try {
      return await admin(databaseUrl, sql);
    } catch (error) {
      const code = (error as { code?: string }).code ?? '';
      const mayPass = code === '' || /^(55P03|40P01|57P0|08|58|E)/.test(code);
      if (!mayPass || performance.now() - started > patienceMs) throw error;
      await delay(250);
    }
  }
}
