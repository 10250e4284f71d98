// A TCP server whose connections go on through WebSockets or sessions of WebTransport that a page in Chromium opens.
//
//   node browser.mjs /usr/bin/chromium 8080 ws://127.0.0.1:4433/             prints its address
//   node browser.mjs /usr/bin/chromium 8080 https://127.0.0.1:4433/ HASH     by WebTransport, to who has that certificate
//
// The page is served at http://localhost, at the port that is named. It is of this machine, as browsers keep pages of
// others from reaching it.
import { mkdtempSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';

const { chromium } = createRequire(process.cwd() + '/')('playwright-core');
const [executablePath, port, ...rest] = process.argv.slice(2);
const [target] = rest.slice(-1);
const hash = rest.length > 1 ? rest[0] : null;

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
const page = await context.newPage();

const connections = new Map();
await page.exposeFunction('said', (id, base64) => connections.get(id)?.write(Buffer.from(base64, 'base64')));
await page.exposeFunction('ended', (id, opened) => {
  if (!opened) console.log('the page cannot open it');
  connections.get(id)?.end();
  connections.delete(id);
});
await page.goto(`http://localhost:${port}/`);
await page.evaluate(() => {
  window.tell = (id, bytes) => {
    let text = '';
    for (let at = 0; at < bytes.length; at += 8192) {
      text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return window.said(id, btoa(text));
  };
});

// Both are run in the page; they open `target` as connection `id`.
const openWebSocket = ([id, target]) =>
  new Promise((resolve) => {
    const ws = new WebSocket(target, 'sheetbend.v1');
    ws.binaryType = 'arraybuffer';
    (window.sockets ??= {})[id] = ws;
    let open = false;
    ws.onopen = () => {
      open = ws.protocol === 'sheetbend.v1' && ws.extensions === '';
      resolve(open);
    };
    ws.onmessage = ({ data }) => window.tell(id, new Uint8Array(data));
    ws.onclose = () => {
      window.ended(id, open);
      resolve(false);
    };
  });

const openWebTransport = async ([id, target, hash]) => {
  const value = Uint8Array.from(atob(hash), (c) => c.charCodeAt(0));
  const transport = new WebTransport(target, { serverCertificateHashes: [{ algorithm: 'sha-256', value }] });
  let writer;
  try {
    await transport.ready;
    // The first stream is lane 0.
    const stream = await transport.createBidirectionalStream();
    writer = stream.writable.getWriter();
    (async () => {
      for await (const data of stream.readable) window.tell(id, data);
    })()
      .catch(() => {})
      .then(() => window.ended(id, true));
  } catch {
    await window.ended(id, false);
    return false;
  }
  (window.sockets ??= {})[id] = {
    send: (data) => writer.write(data),
    close: () => transport.close(),
  };
  return true;
};

let next = 0;
const server = net.createServer(async (tcp) => {
  const id = next++;
  connections.set(id, tcp);
  tcp.pause();
  tcp.on('error', () => {});
  const opened = await page.evaluate(hash ? openWebTransport : openWebSocket, [id, target, hash]);
  if (!opened) return;
  tcp.on('data', (data) =>
    page
      .evaluate(
        ([id, text]) => window.sockets[id].send(Uint8Array.from(atob(text), (c) => c.charCodeAt(0))),
        [id, data.toString('base64')],
      )
      .catch(() => tcp.destroy()),
  );
  tcp.on('close', () => page.evaluate((id) => window.sockets[id].close(), id).catch(() => {}));
  tcp.resume();
});
server.listen(0, '127.0.0.1', () => {
  const at = server.address();
  console.log(`listening on ${at.address}:${at.port}`);
});
process.on('SIGTERM', async () => {
  await context.close();
  process.exit(0);
});
