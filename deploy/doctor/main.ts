/**
 * `npm run doctor`: examines a deployment from outside, and prints its problems with advice. The doctor reads the same
 * variables as the services: DATABASE_URL, REDIS_URL if there is a Redis, and the settings that it compares with the
 * deployment.
 *
 *   --url <address>   also examines the address where clients connect: the balancer, such as https://live.example.org
 *   --quick           waits neither for pings nor for vacuum
 *   --json            prints one JSON array instead of text
 *
 * The doctor changes nothing. Exit status: 0 without a fault, 1 with faults, 2 if the doctor could not run.
 */
import { styleText } from 'node:util';
import type { Client } from 'pg';
import { readFlags } from '#shared/process/cli.ts';
import { doctorSchema, misspelt, readConfig } from '#shared/process/config.ts';
import { examineAccess } from './access.ts';
import { examineBalancer } from './balancer.ts';
import { type Captured, examineCapture } from './capture.ts';
import { type Finding, fault, reason, shown } from './finding.ts';
import { examineHost } from './host.ts';
import { connectPlainly, examinePostgres } from './postgres.ts';
import { examineRedis } from './redis.ts';

const values = (() => {
  try {
    return readFlags({
      url: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    });
  } catch (error) {
    process.stderr.write(`plank doctor: ${reason(error)}\n`);
    return process.exit(2);
  }
})();

const findings: (Finding & { part: string })[] = [];
const print = (text: string) => process.stdout.write(`${text}\n`);
const say = (text: string) => {
  if (!values.json) print(text);
};

const marks = { ok: ['green', '✓'], note: ['blue', 'i'], warning: ['yellow', '!'], fault: ['red', '✗'] } as const;

/** Prints findings as they come. If the examination fails, its error is a finding too. */
async function examine<T>(part: string, title: string, findingsOf: AsyncGenerator<Finding, T>): Promise<T | undefined> {
  say(`\n${styleText('bold', title)}`);
  const report = (finding: Finding) => {
    findings.push({ part, ...finding });
    const [colour, mark] = marks[finding.level];
    say(`  ${styleText(colour, mark)} ${finding.says}`);
    if (finding.advice !== undefined) say(styleText('dim', `    → ${finding.advice}`));
  };
  try {
    for (;;) {
      const { value, done } = await findingsOf.next();
      if (done) return value;
      report(value);
    }
  } catch (error) {
    report(fault(`the examination failed: ${reason(error)}`, 'see its log, and check the rights of the role'));
    return undefined;
  }
}

async function* unreachable(error: unknown): AsyncGenerator<Finding> {
  yield fault(`Postgres cannot be reached: ${reason(error)}`, 'check DATABASE_URL, and see whether Postgres runs');
}

/** Whether to wait for pings and for vacuum, which takes up to a minute. */
const patience = { patient: !values.quick, say: (text: string) => say(`    ${text}`) };

try {
  const config = readConfig(doctorSchema);
  for (const line of misspelt()) process.stderr.write(`plank doctor: ${line}\n`);
  if (values.url !== undefined && !(/^https?:\/\//.test(values.url) && URL.canParse(values.url)))
    throw new Error('--url must be an address like https://live.example.org');
  let captured: Captured | undefined;
  let client: Client | undefined;
  const postgres = `Postgres, ${shown(config.DATABASE_URL)}`;
  try {
    client = await connectPlainly(config.DATABASE_URL);
  } catch (error) {
    await examine('postgres', postgres, unreachable(error));
  }
  if (client) {
    await examine('postgres', postgres, examinePostgres(client, config.DATABASE_URL, config.WAKE));
    const limits = { retentionMs: config.RETENTION_MS, retentionBytes: config.RETENTION_BYTES };
    captured = await examine('capture', 'Capture and log', examineCapture(client, { ...limits, ...patience }));
    const access = {
      ...config,
      // not read by the schema: a wrong key is a finding, and the key need not be in the doctor's environment
      AUTH: process.env['AUTH']?.trim() || undefined,
      AUTH_JWT_SECRET: process.env['AUTH_JWT_SECRET']?.trim() || undefined,
      url: values.url,
    };
    await examine('access', 'Access', examineAccess(client, config.DATABASE_URL, access));
    await client.end().catch(() => {});
  }
  if (config.REDIS_URL !== undefined) {
    const { REDIS_URL: url, PLANK_LOG_NAME: logName, STREAM_BYTES: streamBytes } = config;
    await examine('redis', `Redis, ${shown(url)}`, examineRedis({ url, logName, streamBytes, captured }));
  }
  if (values.url !== undefined) {
    const tables = captured?.tables ?? [];
    await examine(
      'clients',
      `What clients reach, ${shown(values.url)}`,
      examineBalancer({ url: values.url, tables, ...patience }),
    );
  }
  await examine('host', 'This machine', examineHost(config.MAX_CONNECTIONS));
} catch (error) {
  process.stderr.write(`plank doctor: ${reason(error)}\n`);
  process.exit(2);
}

const count = (level: Finding['level']) => findings.filter((finding) => finding.level === level).length;
const [faults, warnings] = [count('fault'), count('warning')];
if (values.json) print(JSON.stringify(findings, null, 2));
else if (faults + warnings === 0) say(`\nAll is well (${count('ok')} examined).`);
else say(`\n${faults} ${faults === 1 ? 'fault' : 'faults'}, ${warnings} ${warnings === 1 ? 'warning' : 'warnings'}.`);
if (values.url === undefined) say('With --url <address> it also examines what clients meet.');
process.exit(faults > 0 ? 1 : 0);
