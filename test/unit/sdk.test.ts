// The SDK as a gateway serves it to browsers: plain JavaScript whose imports lead to what is served as well.

import { readdir } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { sdkFiles } from '#gateway/http/sdk.ts';

test('serves every module of the SDK, without types, and all that they import', async () => {
  const files = sdkFiles();
  const sources = await readdir(new URL('../../client/', import.meta.url), { recursive: true });
  const modules = sources.filter((name) => name.endsWith('.ts') && name !== 'build.ts' && !name.startsWith('dist/'));
  const expected = modules.map((name) => `/client/${name.replace(/\.ts$/, '.js')}`);
  expect([...files.keys()].sort()).toEqual(['/plank.js', '/shared/wire.js', ...expected].sort());
  for (const [path, { type, body }] of files) {
    expect(type).toBe('text/javascript; charset=utf-8');
    expect(body).not.toMatch(/^(export )?(interface|type) /m);
    for (const [, specifier] of body.matchAll(/from\s+'([^']+)'/g)) {
      if (specifier !== 'react') expect(files.has(new URL(specifier!, `http://host${path}`).pathname)).toBe(true);
    }
  }
});
