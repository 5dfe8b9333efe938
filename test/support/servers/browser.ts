// Owns the browser of the end-to-end tests: a real Chromium, headless, that connects to nothing but the page under test.

import { type Browser, chromium } from 'playwright-core';
import { chromiumPath } from './servers.ts';

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // without a screen, all windows but one would draw only one frame a second
  '--disable-frame-rate-limit',
];

export async function launchBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: await chromiumPath(), args: flags, timeout: 30_000 });
}
