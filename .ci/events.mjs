// What an EventSource in Chromium makes of a downlink.
//
//   node events.mjs serve /usr/bin/chromium 8080 127.0.0.1:4433    prints where it is asked
//   node events.mjs ask 127.0.0.1:4500 … http://127.0.0.1:4433/?…  prints what came, as an event stream
//
// The page is served at http://localhost, at the port that is named. Its EventSource reaches the server by a relay that
// cuts the first connection of each as soon as it brought a whole event with an id: the browser is to connect again by
// itself, and to say in Last-Event-ID what it had.
import http from 'node:http';
import net from 'node:net';

const [role, ...rest] = process.argv.slice(2);
if (role === 'ask') await ask(rest[0], rest.at(-1));
else await serve(...rest);

async function ask(at, url) {
  const answer = await fetch(`http://${at}/?${new URLSearchParams({ url })}`);
  for await (const piece of answer.body) process.stdout.write(piece);
}

async function serve(executablePath, port, target) {
  const { open } = await import('./chromium.mjs');
  const [host, at] = target.split(':');
  const seen = new Set();
  const relay = net.createServer((near) => {
    const far = net.connect(Number(at), host);
    let cuts = false;
    let said = '';
    near.on('data', (data) => {
      const [, url] = data.toString('latin1').match(/^GET (\S+) /) ?? [];
      const [, last] = data.toString('latin1').match(/^last-event-id: *(\S+)/im) ?? [];
      cuts = !seen.has(url);
      seen.add(url);
      console.log(last === undefined ? 'an EventSource connects' : `an EventSource goes on behind ${last}`);
      far.write(data);
    });
    far.on('data', (data) => {
      near.write(data);
      // An event that is cut in the middle is none.
      if (cuts) said += data.toString('latin1');
      if (/^id: \d+\ndata: [^\n]*\n\n/m.test(said)) {
        far.destroy();
        near.end();
      }
    });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.end());
    }
  });
  await new Promise((listening) => relay.listen(0, '127.0.0.1', listening));

  const answers = new Map();
  const page = await open(executablePath, port, (page) =>
    page.exposeFunction('said', (number, words) => answers.get(number)?.write(words)),
  );
  let next = 0;
  const asked = http.createServer(async (question, answer) => {
    const url = new URL(new URL(question.url, 'http://localhost/').searchParams.get('url'));
    url.port = relay.address().port;
    const number = next++;
    answers.set(number, answer.writeHead(200, { 'Content-Type': 'text/event-stream' }));
    answer.on('close', () => page.evaluate((number) => window.sources[number].close(), number).catch(() => {}));
    await page.evaluate(
      ([number, url]) => {
        const source = new EventSource(url);
        (window.sources ??= {})[number] = source;
        source.onmessage = ({ data, lastEventId }) => window.said(number, `id: ${lastEventId}\ndata: ${data}\n\n`);
        for (const name of ['received', 'mark', 'end']) {
          source.addEventListener(name, ({ data }) => window.said(number, `event: ${name}\ndata: ${data}\n\n`));
        }
      },
      [number, url.href],
    );
  });
  asked.listen(0, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${asked.address().port}`));
}
