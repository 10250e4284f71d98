// A page in Chromium, without a window. It is at http://localhost, as browsers keep pages of others from reaching this
// machine.
import { mkdtempSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';

const { chromium } = createRequire(process.cwd() + '/')('playwright-core');

/// Opens an empty page that this serves at that port; `prepare` is given the page before that.
export async function open(executablePath, port, prepare) {
  const site = http.createServer((_, answer) => {
    answer.setHeader('Content-Type', 'text/html').end('<title>a page</title>');
  });
  await new Promise((listening) => site.listen(Number(port), 'localhost', listening));

  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), 'sheetbend-')), {
    executablePath,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1',
    ],
  });
  process.on('SIGTERM', async () => {
    await context.close();
    process.exit(0);
  });
  const page = await context.newPage();
  await prepare(page);
  await page.goto(`http://localhost:${port}/`);
  return page;
}
