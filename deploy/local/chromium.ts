// Finds a Chromium for the browser tests: the one that PLANK_TEST_CHROMIUM names, an installed one, or one that is
// unpacked from the Debian package. This file starts nothing.

import { packageProgram } from './packages.ts';
import { findProgram } from './process.ts';

/**
 * The path of a Chromium or Chrome, for Playwright's `executablePath`. If there is none, throws an error with advice.
 */
export async function findChromium(): Promise<string> {
  const named = process.env.PLANK_TEST_CHROMIUM;
  if (named) return named;
  const installed = findProgram('chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome', 'chrome');
  if (installed !== undefined) return installed;
  try {
    return await packageProgram({
      packages: ['chromium', 'chromium-common', 'fonts-dejavu-core'],
      program: 'usr/lib/chromium/chromium',
    });
  } catch (cause) {
    throw new Error(
      `there is no Chromium on this system (${(cause as Error).message}): install one, or name one in PLANK_TEST_CHROMIUM`,
      { cause },
    );
  }
}
