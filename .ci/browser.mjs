// A TCP server whose connections go on through WebSockets that a page in Chromium opens.
//
//   node browser.mjs /usr/bin/chromium 8080 ws://127.0.0.1:4433/    prints its address
//
// The page is served at http://localhost, at the port that is named.
import net from 'node:net';

import { open } from './chromium.mjs';

const [executablePath, port, target] = process.argv.slice(2);

const connections = new Map();
const page = await open(executablePath, port, async (page) => {
  await page.exposeFunction('said', (id, base64) => connections.get(id)?.write(Buffer.from(base64, 'base64')));
  await page.exposeFunction('ended', (id, opened) => {
    if (!opened) console.log('the page cannot open it');
    connections.get(id)?.end();
    connections.delete(id);
  });
});

let next = 0;
const server = net.createServer(async (tcp) => {
  const id = next++;
  connections.set(id, tcp);
  tcp.pause();
  tcp.on('error', () => {});
  const opened = await page.evaluate(
    ([id, target]) =>
      new Promise((resolve) => {
        const ws = new WebSocket(target, 'sheetbend.v1');
        ws.binaryType = 'arraybuffer';
        (window.sockets ??= {})[id] = ws;
        let open = false;
        ws.onopen = () => {
          open = ws.protocol === 'sheetbend.v1' && ws.extensions === '';
          resolve(open);
        };
        ws.onmessage = ({ data }) => {
          const bytes = new Uint8Array(data);
          let text = '';
          for (let at = 0; at < bytes.length; at += 8192) {
            text += String.fromCharCode(...bytes.subarray(at, at + 8192));
          }
          window.said(id, btoa(text));
        };
        ws.onclose = () => {
          window.ended(id, open);
          resolve(false);
        };
      }),
    [id, target],
  );
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
