// The SDK as a gateway serves it to browsers: plain JavaScript, whose imports are served as well.

import { expect, test } from 'vitest';
import { sdkFiles } from '#gateway/http/sdk.ts';

test('a gateway serves the entries of the SDK without types, all that they import, and nothing else', () => {
  const files = sdkFiles();
  expect([...files.keys()]).toEqual(
    expect.arrayContaining(['/plank.js', '/client/plank-client.js', '/client/react.js', '/shared/wire.js']),
  );
  expect([...files.keys()].filter((path) => !/^\/(plank|shared\/wire|client\/[a-z/-]+)\.js$/.test(path))).toEqual([]);
  for (const [path, { type, body }] of files) {
    expect(type).toBe('text/javascript; charset=utf-8');
    expect(body).not.toMatch(/^(export )?(interface|type) /m);
    for (const [, specifier] of body.matchAll(/from\s+'([^']+)'/g)) {
      if (specifier !== 'react') expect(files.has(new URL(specifier!, `http://host${path}`).pathname)).toBe(true);
    }
  }
});
