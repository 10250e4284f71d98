// Carries sheetbend between WebSocket and TCP with the package `ws`, to try our ends against it.
//
//   node relay.mjs serve 127.0.0.1:4433           a WebSocket server in front of a TCP server; prints its address
//   node relay.mjs connect ws://127.0.0.1:4433/   a TCP server in front of a WebSocket server; likewise
import net from 'node:net';
import { createRequire } from 'node:module';

const { WebSocket, WebSocketServer } = createRequire(process.cwd() + '/')('ws');
const [mode, target] = process.argv.slice(2);
const listening = (at) => console.log(`listening on ${at.address}:${at.port}`);

function join(ws, tcp) {
  tcp.on('data', (data) => ws.send(data));
  tcp.on('close', () => ws.close());
  tcp.on('error', () => ws.terminate());
  ws.on('message', (data) => tcp.write(data));
  ws.on('close', () => tcp.end());
  ws.on('error', () => tcp.destroy());
}

if (mode === 'serve') {
  const [host, port] = target.split(':');
  const server = new WebSocketServer({
    host: '127.0.0.1',
    port: 0,
    handleProtocols: (offered) => (offered.has('sheetbend.v1') ? 'sheetbend.v1' : false),
  });
  server.on('listening', () => listening(server.address()));
  server.on('connection', (ws) => join(ws, net.connect(Number(port), host)));
} else {
  const server = net.createServer((tcp) => {
    tcp.pause();
    const ws = new WebSocket(target, 'sheetbend.v1');
    ws.on('open', () => {
      join(ws, tcp);
      tcp.resume();
    });
    ws.on('error', () => tcp.destroy());
  });
  server.listen(0, '127.0.0.1', () => listening(server.address()));
}
