// What operators see of the rights of clients: the policy that did not admit a change, and users of slow clients.

import { beforeEach, describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';
import { Viewers, type Watcher } from '../../support/stage/viewers.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(
  `create table todo (id integer primary key, status text);
   select plank.attach('todo');
   create table doc (id integer primary key, owner text, body text);
   select plank.attach('doc');
   create table mine (id integer primary key, owner text);
   select plank.attach('mine');
   select plank.allow('doc', 'authenticated', read => '{"owner": {"$claim": "sub"}}');
   select plank.allow('doc', 'clerk', read => '{"owner": {"in": {"$from": "mine", "select": "owner"}}}');
   select plank.allow('mine', 'user', read => '{"owner": {"$claim": "team"}}')`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;
const viewers = new Viewers(stage);

beforeEach(async () => {
  await sql('truncate doc, mine');
  await stage.arrived();
});

interface Step {
  step: string;
  state: string;
  text: string;
  policy?: unknown;
}

/** The step `matched` of the latest change of a row, for a client. */
async function matched(table: string, id: number, { frames }: Watcher): Promise<Step> {
  const welcome = frames.find(({ type }) => type === 'welcome') as { connection?: string } | undefined;
  const query = new URLSearchParams({ table, id: String(id), connection: welcome!.connection! });
  const response = await fetch(`${stage.embedded.opsUrl}/ops/explain?${query}`);
  const { changes } = (await response.json()) as { changes: { steps: Step[] }[] };
  return changes[0]!.steps.find(({ step }) => step === 'matched')!;
}

describe('explain', () => {
  test('names the policy that does not admit the change', async () => {
    const ada = await viewers.live(tokenOf());
    await sql(`insert into doc values (1, 'bob', 'x')`);
    await stage.arrived();
    expect(await matched('doc', 1, ada)).toMatchObject({
      state: 'no',
      text: 'The policy of the role authenticated (owner = "ada") admits the row neither before nor after the change.',
      policy: { role: 'authenticated', filter: 'owner = "ada"', admits: false, whyNot: null },
    });
  });

  test('names the policy of a change that the client got', async () => {
    const ada = await viewers.live(tokenOf());
    await sql(`insert into doc values (2, 'ada', 'x')`);
    await stage.arrived();
    expect(await matched('doc', 2, ada)).toMatchObject({
      state: 'done',
      policy: { filter: 'owner = "ada"', admits: true },
    });
  });

  test('names the policy with a set, and what the subscription asked for', async () => {
    const ada = await viewers.live(tokenOf({ role: 'clerk' }));
    await sql(`insert into doc values (3, 'eve', 'x')`);
    await stage.arrived();
    expect(await matched('doc', 3, ada)).toMatchObject({
      state: 'no',
      text: expect.stringContaining('The policy of the role clerk lets the client read: owner in (owner of mine).'),
      policy: { role: 'clerk', admits: null },
    });
  });

  test.each([
    [{}, 'the table has no policy for authenticated, anonymous'],
    [{ role: 'user' }, 'the policy of the role user needs team: a claim is missing or of another type'],
  ])('says why a table does not exist for the client: %j', async (claims, why) => {
    const ada = await viewers.live(tokenOf(claims));
    await sql(`insert into mine values (1, 'ada')`);
    await stage.arrived();
    expect(await matched('mine', 1, ada)).toMatchObject({
      state: 'no',
      text: `For this client, the table looks as if it did not exist: ${why}.`,
    });
  });
});

test('the console shows the user, the role and the expiry of a slow client', async () => {
  const ada = await viewers.live(tokenOf({ role: 'editor' }));
  ada.pause();
  const view = new AbortController();
  const response = await fetch(`${stage.embedded.opsUrl}/ops/view`, { signal: view.signal });
  let text = '';
  const reading = (async () => {
    for await (const part of response.body!) text = (text + Buffer.from(part).toString()).slice(-200_000);
  })().catch(() => {});
  try {
    await sql(`insert into doc select n, 'ada', repeat(md5(n::text), 16000) from generate_series(1, 60) n`);
    await until('the slow client is shown', () => text.includes('"user":"ada","role":"editor","expiresAt":'), 20_000);
    expect(text).toContain('"auth":"jwt"');
  } finally {
    ada.close();
    view.abort();
    await reading;
  }
});

test('health says whether clients need tokens', async () => {
  expect(await (await fetch(`${stage.embedded.url}/health`)).json()).toMatchObject({ auth: 'jwt' });
});
