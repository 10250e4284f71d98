// A TCP server whose connections go on through WebSockets or sessions of WebTransport that a page in Chromium opens.
//
//   node browser.mjs /usr/bin/chromium 8080 ws://127.0.0.1:4433/             prints its address
//   node browser.mjs /usr/bin/chromium 8080 HASH https://127.0.0.1:4433/     by WebTransport, to who has that certificate
//
// With WebTransport each piece on TCP has the number of its stream, 0 for the first, and its length in front of it.
// The page is served at http://localhost, at the port that is named.
import net from 'node:net';

import { open } from './chromium.mjs';

const [executablePath, port, ...rest] = process.argv.slice(2);
const [target] = rest.slice(-1);
const hash = rest.length > 1 ? rest[0] : null;

const connections = new Map();
const page = await open(executablePath, port, async (page) => {
  await page.exposeFunction('said', (id, stream, base64) => {
    const data = Buffer.from(base64, 'base64');
    if (hash) {
      const head = Buffer.alloc(6);
      head.writeUInt16BE(stream, 0);
      head.writeUInt32BE(data.length, 2);
      connections.get(id)?.write(head);
    }
    connections.get(id)?.write(data);
  });
  await page.exposeFunction('ended', (id, opened) => {
    if (!opened) console.log('the page cannot open it');
    connections.get(id)?.end();
    connections.delete(id);
  });
});
await page.evaluate(() => {
  window.tell = (id, bytes, stream = 0) => {
    let text = '';
    for (let at = 0; at < bytes.length; at += 8192) {
      text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return window.said(id, stream, btoa(text));
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
  const writers = [];
  const tell = async (readable, stream) => {
    for await (const data of readable) window.tell(id, data, stream);
  };
  try {
    await transport.ready;
    // The first stream is lane 0.
    const stream = await transport.createBidirectionalStream();
    writers[0] = stream.writable.getWriter();
    const ended = () => window.ended(id, true);
    tell(stream.readable, 0).then(ended, ended);
    (async () => {
      let number = 0;
      for await (const readable of transport.incomingUnidirectionalStreams) {
        tell(readable, ++number).catch(() => {});
      }
    })().catch(() => {});
  } catch {
    await window.ended(id, false);
    return false;
  }
  (window.sockets ??= {})[id] = {
    send: async (data, stream) => {
      writers[stream] ??= (await transport.createUnidirectionalStream()).getWriter();
      await writers[stream].write(data);
    },
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
  // One piece after the other, as a new stream takes a while to be opened.
  let sending = Promise.resolve();
  const send = (data, stream) => {
    const evaluate = () =>
      page.evaluate(
        ([id, text, stream]) => window.sockets[id].send(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), stream),
        [id, data.toString('base64'), stream],
      );
    sending = sending.then(evaluate).catch(() => tcp.destroy());
  };
  let waiting = Buffer.alloc(0);
  tcp.on('data', (data) => {
    if (!hash) return send(data, 0);
    waiting = Buffer.concat([waiting, data]);
    while (waiting.length >= 6 && waiting.length >= 6 + waiting.readUInt32BE(2)) {
      const end = 6 + waiting.readUInt32BE(2);
      send(waiting.subarray(6, end), waiting.readUInt16BE(0));
      waiting = waiting.subarray(end);
    }
  });
  tcp.on('close', () => page.evaluate((id) => window.sockets[id].close(), id).catch(() => {}));
  tcp.resume();
});
server.listen(0, '127.0.0.1', () => {
  const at = server.address();
  console.log(`listening on ${at.address}:${at.port}`);
});
