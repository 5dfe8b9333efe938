/** Examines who may do what: the settings AUTH_* of this environment, and the policies in the database. */
import type { Client } from 'pg';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { Rights } from '#gateway/rights/rights.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import { isLoopback } from '#shared/process/listen.ts';
import { createLog } from '#shared/process/logger.ts';
import { type Finding, fault, note, ok, warning } from './finding.ts';

export interface AccessSettings {
  /** undefined: this environment does not say whether clients need tokens */
  AUTH?: string | undefined;
  AUTH_JWT_SECRET?: string | undefined;
  AUTH_AUDIENCE?: string | undefined;
  AUTH_ISSUER?: string | undefined;
  HOST: string;
  /** the address where clients connect */
  url?: string | undefined;
}

const minSecretBytes = 32;
const minCharacters = 16;
const healthMs = 5_000;

export async function* examineAccess(client: Client, url: string, settings: AccessSettings): AsyncGenerator<Finding> {
  yield* examineSettings(settings);
  if (settings.url !== undefined) yield* examineReached(settings.url);
  const { rows } = await client.query<{ is: boolean }>("select to_regclass('plank.policies') is not null as is");
  // the examination of the capture reports that the database lacks the schema of this version
  if (rows[0]!.is) yield* examinePolicies(url, settings);
}

function* examineSettings({
  AUTH,
  AUTH_JWT_SECRET,
  AUTH_AUDIENCE,
  AUTH_ISSUER,
  HOST,
}: AccessSettings): Generator<Finding> {
  if (AUTH === undefined) {
    yield note('AUTH is not set here', 'set AUTH and AUTH_* as for the gateways, so that the doctor examines them');
    return;
  }
  if (AUTH !== 'off' && AUTH !== 'jwt') {
    yield fault('AUTH is neither off nor jwt: gateways do not start', 'set AUTH=jwt with a key, or AUTH=off');
    return;
  }
  if (AUTH === 'off') {
    const says =
      'clients are not authenticated (AUTH=off): everybody who reaches a gateway may read and write all tables';
    if (isLoopback(HOST))
      yield note(says, 'gateways listen on loopback only (HOST); set AUTH=jwt before others reach them');
    else yield fault(`${says}, and HOST is ${HOST}`, 'set AUTH=jwt with a key, or HOST=localhost');
    return;
  }
  yield ok('clients are authenticated (AUTH=jwt)');
  if (AUTH_JWT_SECRET !== undefined) {
    if (Buffer.byteLength(AUTH_JWT_SECRET) < minSecretBytes)
      yield fault(
        `AUTH_JWT_SECRET is shorter than ${minSecretBytes} bytes: gateways do not start`,
        'make one with: openssl rand -base64 48',
      );
    else if (new Set(AUTH_JWT_SECRET).size < minCharacters)
      yield warning(
        `AUTH_JWT_SECRET has fewer than ${minCharacters} different characters: it can be guessed`,
        'make one with: openssl rand -base64 48',
      );
  }
  const unset = Object.entries({ AUTH_AUDIENCE, AUTH_ISSUER }).filter(([, value]) => value === undefined);
  for (const [name] of unset)
    yield warning(
      `${name} is not set: a token that was made for another service with the same key is accepted`,
      `set ${name} to the value that tokens for these gateways have`,
    );
}

/** Whether the gateways that clients reach admit everybody. */
async function* examineReached(url: string): AsyncGenerator<Finding> {
  const { hostname } = new URL(url);
  // the examination of what clients reach reports an address that does not answer
  const response = await fetch(new URL('/health', url), { signal: AbortSignal.timeout(healthMs) }).catch(() => null);
  const health = (await response?.json().catch(() => null)) as { auth?: unknown } | null | undefined;
  if (health?.auth === 'off' && !isLoopback(hostname.replace(/^\[|\]$/g, '')))
    yield fault(
      `the gateway at ${hostname} does not authenticate clients (AUTH=off), and other machines can reach it`,
      'set AUTH=jwt with a key for all gateways',
    );
}

async function* examinePolicies(url: string, { AUTH }: AccessSettings): AsyncGenerator<Finding> {
  const settings = { applicationName: 'plank doctor', statementTimeoutMs: 15_000, max: 1, onError: () => {} };
  const pool = createPool(url, settings);
  try {
    const catalog = new Catalog(pool);
    await catalog.begin();
    const problems = new Rights({ catalog, log: createLog('silent', 'doctor', 'doctor') }).problems();
    for (const { table, role, problem } of problems)
      yield fault(
        `the policy of ${table} for the role ${role} cannot be used, so it allows nothing: ${problem}`,
        'set the policy again with plank.allow, or remove it with plank.forbid',
      );
    for (const { name, columns, policies } of catalog.tables)
      for (const { role, read_columns, write_columns } of policies) {
        const gone = [...new Set([...(read_columns ?? []), ...(write_columns ?? [])])].filter(
          (column) => !columns.some((one) => one.name === column),
        );
        if (gone.length > 0)
          yield warning(
            `the policy of ${name} for the role ${role} names columns that the table does not have: ${gone.join(', ')}`,
            'set the policy again with plank.allow',
          );
      }
    const bare = catalog.tables.filter(({ policies }) => policies.length === 0).map(({ name }) => name);
    const count = catalog.tables.reduce((sum, { policies }) => sum + policies.length, 0);
    if (AUTH === 'jwt' && bare.length > 0)
      yield warning(
        `no client can see ${bare.join(', ')}: attached, but without a policy (AUTH=jwt)`,
        'run plank.allow for the roles that may use the table, or plank.detach',
      );
    if (AUTH === 'off' && count > 0)
      yield warning(`${count} policies have no effect, because AUTH is off`, 'set AUTH=jwt');
    if (count > 0 && problems.length === 0) yield ok(`${count} ${count === 1 ? 'policy' : 'policies'} can be used`);
  } finally {
    await pool.end();
  }
}
