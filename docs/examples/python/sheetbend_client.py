#!/usr/bin/env python3
"""A client of the sheetbend protocol, written from docs/PROTOCOL.md alone. Standard library only, for TCP, TLS and HTTP;
WebSocket is that of the package `websockets`, QUIC and WebTransport are in sheetbend_quic.py, by the package `aioquic`.

    python3 sheetbend_client.py 127.0.0.1:4433 [method]
    python3 sheetbend_client.py tls://127.0.0.1:4433 [method]    (trusts the certificates in $SSL_CERT_FILE)
    python3 sheetbend_client.py ws://127.0.0.1:4433/ [method]    (or wss://)
    python3 sheetbend_client.py http://127.0.0.1:4433/?mode=sse [method]    (or ndjson, binary)
    python3 sheetbend_client.py quic://localhost:4433 [method]    (or wt://localhost:4433/)

It opens a session, makes a request, cuts the connection with a second request under way, joins the
same session over a new connection, gets that answer and a third one there, and closes. Numbers in comments name
sections of the page. It shows the protocol; X25519 in Python is neither fast nor safe against timing.
"""
import base64, contextlib, hashlib, hmac, http.client, io, json, os, socket, ssl, subprocess, sys, time, urllib.parse

# ---- 2.1 varints; fields -------------------------------------------------------------------------------------

def varint(value):
    size = next((n for n in range(1, 9) if value < 1 << 7 * n), 9)
    if size == 9:
        return b"\xff" + value.to_bytes(8, "big")
    ones = 0xFF & ~(0xFF >> (size - 1))  # size - 1 leading ones
    return (ones << 8 * (size - 1) | value).to_bytes(size, "big")

def counted(data):
    return varint(len(data)) + data

class ProtocolError(Exception):
    pass

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if self.at + size > len(self.data):
            raise ProtocolError("a field is cut off")
        self.at += size
        return self.data[self.at - size:self.at]

    def varint(self):
        first = self.take(1)[0]
        follow = next((n for n in range(8) if not first & 0x80 >> n), 8)
        value = int.from_bytes(bytes([first & 0x7F >> follow]) + self.take(follow), "big")
        if follow and value < 1 << 7 * follow:
            raise ProtocolError("a varint is not minimal")
        return value

    def counted(self):
        return self.take(self.varint())

    def text(self):
        return self.counted().decode()

    def rest(self):
        return self.take(len(self.data) - self.at)

    def counts(self, fields):
        return [tuple(self.varint() for _ in range(fields)) for _ in range(self.varint())]

# ---- 3.2 CRC32C, 5.3 X25519 and keys -------------------------------------------------------------------------

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

def x25519(secret, point=9):
    """RFC 7748 section 5."""
    p = 2**255 - 19
    k = int.from_bytes(secret, "little") & ~7 & (1 << 254) - 1 | 1 << 254
    u = point if isinstance(point, int) else int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = bit
        a, b, c, d = (x2 + z2) % p, (x2 - z2) % p, (x3 + z3) % p, (x3 - z3) % p
        da, cb, aa, bb = d * a % p, c * b % p, a * a % p, b * b % p
        x3, z3 = (da + cb) ** 2 % p, u * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")

def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def require(condition, what):
    if not condition:
        raise ProtocolError(what)

# ---- frames and parameters -----------------------------------------------------------------------------------

HELLO, WELCOME, JOIN, JOINED, CONFIRM, REJECT = range(1, 7)
ACK_LANES = 0x16
ACK, ACK_HERE, PING, PONG, RESET_STREAM, STOP_SENDING, MAX_DATA, MAX_STREAMS, MAX_STREAM_DATA = range(8, 0x11)
PATH_STATUS, ADVERTISE, PATH_ABANDON, GOAWAY, CLOSE = range(0x11, 0x16)
REQUESTS = 1  # the class
WINDOW, CLASS_WINDOW = 262144, 1048576  # what we grant: the defaults of 5.5

# No stream of the server is welcome here: 24 zeros for max_streams. The floor stands in every HELLO: 0, plain.
# crc: wanted, also where TLS would do without (3.2)
OUR_PARAMS = varint(2) + counted(varint(1)) + varint(10) + counted(bytes(24)) + varint(11) + counted(varint(0))

def peer_credit(data):
    """The server's max_data, max_stream_data and max_streams for requests that we open (5.5)."""
    reader, found = Reader(data), {}
    while reader.at < len(data):
        number = reader.varint()
        require(number not in found, "a parameter stands twice")
        found[number] = Reader(reader.counted())
    numbers = lambda i, n: [found[i].varint() for _ in range(n)] if i in found else None
    max_data, per_stream, streams = numbers(8, 8), numbers(9, 8), numbers(10, 24)
    require(11 not in found or found[11].varint() == 0, "the server wants an encrypted carrier")
    return (max_data[REQUESTS] if max_data else 1048576, per_stream[REQUESTS] if per_stream else 262144,
            streams[REQUESTS * 3] if streams else 16384, found[1].varint() if 1 in found else 65536)

class Stream:
    """A request: bytes out, bytes in, both by offset."""
    def __init__(self, number, out, credit):
        self.id, self.out, self.credit = number, out, credit
        self.answer, self.early, self.final = bytearray(), {}, None
        self.highest, self.granted = 0, WINDOW

    def take(self, offset, data, fin):
        end = offset + len(data)
        require(end <= self.granted, "beyond the stream's credit")
        require(self.final is None or end <= self.final, "beyond the final size")
        if fin:
            require(self.final in (None, end) and end >= self.highest, "two final sizes")
            self.final = end
        growth, self.highest = max(0, end - self.highest), max(self.highest, end)
        if len(data) > len(self.early.get(offset, b"")):
            self.early[offset] = data
        for start in sorted(self.early):  # what continues the answer joins it; what we have is dropped
            if start > len(self.answer):
                break
            self.answer += self.early.pop(start)[len(self.answer) - start:]
        return growth

    def complete(self):
        return self.final == len(self.answer)

# ---- 14 transports -------------------------------------------------------------------------------------------

class WebSocket:
    """14.2: the payloads of all binary messages of a direction, one behind the other."""
    def __init__(self, url):
        from websockets.sync.client import connect
        options = {"subprotocols": ["sheetbend.v1"], "compression": None, "max_size": None}
        self.ws = contextlib.ExitStack().enter_context(connect(url, **options))  # lives until `close`
        require(self.ws.subprotocol == "sheetbend.v1", "the subprotocol")

    def sendall(self, data):
        self.ws.send(data)

    def recv(self, _):
        from websockets.exceptions import ConnectionClosed
        try:
            data = self.ws.recv(timeout=10)
        except ConnectionClosed:
            return b""
        require(isinstance(data, bytes), "a text message")
        return data

    def shutdown(self, _):
        self.ws.close()

    def close(self):
        self.ws.socket.close()  # without a word, as a network does

class Http:
    """14.7: each `sendall` is an upload, `recv` reads one downlink. It may be read by a command, such as curl."""
    ACCEPT = {"binary": "application/octet-stream", "sse": "text/event-stream", "ndjson": "application/x-ndjson"}

    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)
        self.mode = dict(urllib.parse.parse_qsl(self.url.query)).get("mode", "sse")
        self.up, self.down, self.command = self.connection(), None, None
        self.reader = os.environ.get("SHEETBEND_DOWNLINK")
        self.token, self.key, self.uploads, self.downlinks = None, None, 0, 0
        self.sent = self.received = 0
        self.inbox = b""

    def connection(self):
        return http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=10)

    def target(self, op, number, start):
        proof = mac(self.key, op.encode(), b"\0", base64.urlsafe_b64decode(self.token + "=="),
                    *(value.to_bytes(8, "big") for value in (number, start, self.received)))[:16]
        proof = base64.urlsafe_b64encode(proof).decode().rstrip("=")
        return f"/?op={op}&path={self.token}&n={number}&from={start}&received={self.received}&mac={proof}"

    def post(self, target, data):
        self.up.request("POST", target, data)
        response = self.up.getresponse()
        body = response.read()
        require(response.status == (204 if self.token else 200), f"status {response.status}: {body!r}")
        self.sent += len(data)
        return response, body

    def sendall(self, data):
        if self.token is None:
            response, body = self.post("/?op=new", data)
            self.token = response.headers["Sheetbend-Path"]
            self.blocks(io.BytesIO(body))
        else:
            self.uploads += 1
            response, _ = self.post(self.target("up", self.uploads, self.sent), data)
            require(int(response.headers["Sheetbend-Received"]) == self.sent, "what the server has")

    def recv(self, _):
        while not self.inbox:
            if self.down is None:
                self.downlinks += 1
                operation = "events" if self.mode == "sse" and self.reader else "down"
                self.open(self.target(operation, self.downlinks, self.received))
            if not {"binary": self.block, "sse": self.event, "ndjson": self.line}[self.mode](self.down):
                return b""
        data, self.inbox = self.inbox, b""
        return data

    def open(self, target):
        if self.reader:  # a command: the header field and the URL follow
            url = f"http://{self.url.netloc}{target}"
            command = [*self.reader.split(), "-H", f"Accept: {self.ACCEPT[self.mode]}", url]
            self.command = subprocess.Popen(command, stdout=subprocess.PIPE)
            self.down = self.command.stdout
            return
        connection = self.connection()
        connection.request("GET", target, headers={"Accept": self.ACCEPT[self.mode]})
        self.down = connection.getresponse()
        require(self.down.status == 200, f"status {self.down.status}")

    def take(self, data, end=None):
        self.received += len(data)
        require(end in (None, self.received), "a position")
        self.inbox += data

    def block(self, stream):
        head = stream.read(1)
        if not head:
            return False
        reader = Reader(head + stream.read(f"{head[0]:08b}0".index("0")))
        value = reader.varint()
        if value & 3 == 0:
            self.take(stream.read(value >> 2))
        return value & 3 != 2

    def blocks(self, stream):
        while self.block(stream):
            pass

    def event(self, stream):
        fields = {}
        while True:
            line = stream.readline()
            if not line:
                return False
            if line == b"\n":
                break
            name, _, value = line.rstrip(b"\n").decode().partition(":")
            fields[name] = value.removeprefix(" ")
        if "id" in fields:
            self.take(base64.b64decode(fields["data"]), int(fields["id"]))
        return fields.get("event") != "end"

    def line(self, stream):
        line = stream.readline()
        if not line.strip():
            return bool(line)
        said = json.loads(line)
        if "id" in said:
            self.take(base64.b64decode(said["data"]), said["id"])
        return "end" not in said

    def shutdown(self, _):
        self.uploads += 1  # whatever the answer: the path may be over already
        self.up.request("POST", self.target("end", self.uploads, self.sent), b"")
        self.up.getresponse().read()

    def close(self):
        self.up.close()
        if self.command:
            self.command.kill()
            self.command.wait()
        elif self.down:
            self.down.close()

class Relayed:
    """A TCP connection to who speaks a transport with lanes for us: each piece with its stream's number and length."""
    def __init__(self, address):
        host, port = address.rstrip("/").rsplit(":", 1)
        self.tcp, self.streams = socket.create_connection((host, int(port)), timeout=10), 0
        self.reader, self.early = self.tcp.makefile("rb"), []

    def sendall(self, data):
        self.send_on(0, data)

    def open_lane(self):
        self.streams += 1
        return self.streams

    def send_on(self, stream, data):
        self.tcp.sendall(stream.to_bytes(2, "big") + len(data).to_bytes(4, "big") + data)

    def recv_any(self, lanes):
        while not lanes or not self.early:
            head = self.reader.read(6)
            if len(head) < 6:
                return 0, b""
            stream, data = int.from_bytes(head[:2], "big"), self.reader.read(int.from_bytes(head[2:], "big"))
            if lanes or stream == 0:
                return stream, data
            self.early.append((stream, data))
        return self.early.pop(0)

    def recv(self, _):
        return self.reader.read(1)

    def shutdown(self, how):
        self.tcp.shutdown(how)

    def close(self):
        self.tcp.close()

def dial(url):
    scheme, _, rest = url.rpartition("://")
    if scheme == "http":
        return Http(url)
    if scheme in ("ws", "wss"):
        return WebSocket(url)
    if scheme in ("quic", "wt", "https+wt"):
        from sheetbend_quic import Quic
        return Quic(url)
    if scheme == "lanes":
        return Relayed(rest)
    host, port = rest.rstrip("/").rsplit(":", 1)
    host = host.strip("[]")
    sock = socket.create_connection((host, int(port)), timeout=10)
    if scheme == "tls":  # 14.3
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["sheetbend/1"])
        sock = context.wrap_socket(sock, server_hostname=host)
        require(sock.selected_alpn_protocol() == "sheetbend/1", "the application protocol")
    return sock

class Outgoing:
    """What we send on a lane. `sent` counts records (3.4); `held` is what each unacknowledged one holds."""
    def __init__(self):
        self.sent = self.acked = 0
        self.held = {}

class Incoming:
    """What comes on a lane, by its number."""
    def __init__(self, number):
        self.number, self.buffer, self.received, self.ack_due = number, b"", 0, False

class Path:
    """One connection."""
    def __init__(self, number, address):
        self.id, self.sock, self.live = number, dial(address), False
        self.out, self.coming, self.by_stream = {0: Outgoing()}, {0: Incoming(0)}, {}
        self.by_stream[0] = self.lane = self.coming[0]
        self.ends, self.arrived, self.busy = {}, 0.0, None

    def send(self, body, held=(), ack_now=False, lane=0):
        record = (len(body) + 4).to_bytes(3, "big") + bytes([0x08 | ack_now]) + body
        out = self.out[lane]
        out.held[out.sent] = held
        out.sent += 1
        record += crc32c(record).to_bytes(4, "little")
        self.sock.send_on(self.busy, record) if lane else self.sock.sendall(record)

    def busy_lane(self):
        """The lane for what is long, if there are any: one of ours, that begins with its number (14.8)."""
        if self.busy is None and hasattr(self.sock, "open_lane"):
            self.busy, self.out[1] = self.sock.open_lane(), Outgoing()
            self.sock.send_on(self.busy, varint(1))
        return 0 if self.busy is None else 1

    def receive(self):
        """Waits for input, and tells of which lane it is."""
        if not hasattr(self.sock, "recv_any"):
            stream, data = 0, self.sock.recv(65536)
        else:
            stream, data = self.sock.recv_any(lanes=self.live)
        if stream not in self.by_stream:
            self.by_stream[stream] = Incoming(None)
        lane = self.by_stream[stream]
        require(data or stream, "the connection was closed")
        lane.buffer += data
        if lane.number is None and lane.buffer:  # a number below 128 is one byte, and ours are
            reader = Reader(lane.buffer)
            lane.number, lane.buffer = reader.varint(), reader.rest()
            require(lane.number not in self.coming and lane.number <= 1024, "a lane's number")
            self.coming[lane.number] = lane
        return lane

    def records(self):
        """Waits for input and yields the bodies of whole records."""
        self.lane = lane = self.receive()
        while len(lane.buffer) >= 4:
            size, flags = 4 + int.from_bytes(lane.buffer[:3], "big"), lane.buffer[3]
            require(flags & ~0x09 == 0 and flags & 0x08, f"flags {flags:#x}")  # we announced no LZ4; CRC is on
            require(9 <= size <= (65536 if self.live else 16384) + 8, "the record's length")
            if len(lane.buffer) < size:
                return
            record, lane.buffer = lane.buffer[:size], lane.buffer[size:]
            require(crc32c(record[:-4]).to_bytes(4, "little") == record[-4:], "CRC")
            lane.ack_due |= bool(flags & 0x01)
            yield record[4:-4]
            lane.received += 1
            self.arrived = time.monotonic()

    def acknowledge(self):
        """4.2: lane 0 by itself, the others together."""
        delay = varint(int((time.monotonic() - self.arrived) * 1e6))
        due = [lane for lane in self.coming.values() if lane.ack_due]
        for lane in due:
            lane.ack_due = False
        if self.coming[0] in due:
            self.send(varint(ACK_HERE) + varint(self.coming[0].received) + delay)
        counts = [varint(lane.number) + varint(lane.received) for lane in due if lane.number]
        if counts:
            self.send(varint(ACK_LANES) + delay + varint(len(counts)) + b"".join(counts))

class Session:
    def __init__(self, address):
        self.address, self.keys, self.next_path = address, None, 0
        self.paths, self.dead_counts, self.streams, self.next_index = [], [], {}, 0
        self.used = self.came = self.consumed = 0
        self.methods, self.known = {}, set()  # 11.6: our numbers, and those that the server has answered to
        self.class_granted = CLASS_WINDOW
        self.secret, self.nonce = os.urandom(32), os.urandom(16)
        self.hello_t = varint(1) + varint(1) + self.nonce + x25519(self.secret) + OUR_PARAMS

    # ---- 5 and 6: a path begins with HELLO or JOIN

    def connect(self):
        path = Path(self.next_path, self.address)
        self.next_path += 1
        if self.keys is None:
            path.send(varint(HELLO) + counted(varint(path.id) + self.hello_t))
        else:
            exporter = getattr(path.sock, "exporter", b"")
            body = (self.id + counted(self.routing) + varint(path.id) + os.urandom(16) + varint(bool(exporter))
                    + varint(0) + varint(262144) + varint(0))  # bound or not, floor 0, in flight, no other paths
            path.join = body + mac(self.keys["join"], b"join", body, exporter)
            path.send(varint(JOIN) + counted(path.join))
        self.paths = [path]
        while not path.live:
            self.pump()
        return path

    def take_welcome(self, path, message):
        require(self.keys is None, "WELCOME a second time")
        reader = Reader(message)
        require(reader.varint() == path.id and len(message) > 32, "WELCOME for another path")
        welcome_t = message[reader.at:-32]
        require(reader.varint() == 1, "version")
        self.id, self.routing, share = reader.take(16), reader.counted(), reader.take(32)
        credit = peer_credit(reader.counted())
        self.max_data, self.max_stream_data, self.max_streams, self.max_record = credit
        require(len(reader.rest()) == 32, "WELCOME's length")
        dh = x25519(self.secret, share)
        require(any(dh), "a weak share")
        size = lambda part: len(part).to_bytes(4, "big")
        th = sha256(b"sheetbend/1 transcript", size(self.hello_t), self.hello_t, size(welcome_t), welcome_t)
        prk = mac(th, dh)
        labels = ("welcome", "confirm", "join", "joined", "exchange")
        keys = {name: mac(prk, b"sheetbend/1 ", name.encode(), b"\1") for name in labels}
        expected = mac(keys["welcome"], th, path.id.to_bytes(8, "big"))
        require(hmac.compare_digest(expected, message[-32:]), "WELCOME's MAC")
        self.keys, self.secret = keys, None
        self.confirm(path, b"hello", th)

    def take_joined(self, path, message):
        reader = Reader(message)
        require(reader.varint() == path.id, "JOINED for another path")
        reader.take(16), reader.varint()
        counts = reader.counts(3)
        require(len(reader.rest()) == 32, "JOINED's length")
        expected = mac(self.keys["joined"], b"joined", sha256(path.join), message[:-32])
        require(hmac.compare_digest(expected, message[-32:]), "JOINED's proof")
        self.confirm(path, b"join", sha256(path.join), sha256(message))
        for number, lane, count in counts:
            self.take_ack(path, number, lane, count)

    def confirm(self, path, *transcript):
        if isinstance(path.sock, Http):
            path.sock.key = self.keys["exchange"]
        body = varint(path.id) + varint(len(self.dead_counts)) + b"".join(
            varint(number) + varint(lane) + varint(count) for number, lane, count in self.dead_counts)
        path.send(varint(CONFIRM) + counted(body + mac(self.keys["confirm"], *transcript, body)))
        path.live = True

    # ---- 6.9: what a dead path had not acknowledged goes out again

    def cut(self):
        self.lost = self.paths.pop()
        self.lost.sock.close()
        counts = [(self.lost.id, lane.number, lane.received) for lane in self.lost.coming.values()]
        self.dead_counts = (self.dead_counts + counts)[-32:]

    def resume(self):
        path = self.connect()
        again = [item for out in self.lost.out.values() for _, held in sorted(out.held.items()) for item in held]
        self.lost = None
        for item in again:
            self.put(path, *item)
        return len(again)

    lost = None

    def take_ack(self, path, number, lane, count):
        about = next((p for p in [path, self.lost] if p and p.id == number), None)
        if about is None:
            return  # settled long ago
        out = about.out.get(lane)
        require(out and count <= out.sent, "an acknowledgement of what was never sent")
        for record in range(out.acked, count):
            out.held.pop(record, None)
        out.acked = max(out.acked, count)

    # ---- 11: requests

    def request(self, method, payload):
        require(self.next_index < self.max_streams, "no credit for another stream")
        index = self.methods.setdefault(method, len(self.methods) + 1)
        named = index not in self.known
        head = varint(index << 1 | 1) + varint(4) + counted(method.encode()) if named else varint(index << 1)
        out = head + payload
        require(self.used + len(out) <= self.max_data and len(out) <= self.max_stream_data, "no credit")
        self.used += len(out)
        stream = Stream(self.next_index << 6 | REQUESTS << 3, out, self.max_stream_data)
        self.next_index += 1
        stream.method = index
        self.streams[stream.id] = stream
        step = min(self.max_record, 65536) - 32  # room for the frame's header
        for start in range(0, len(out), step):
            self.put(self.paths[0], "data", stream, start, min(start + step, len(out)))
        return stream

    def put(self, path, kind, *what):
        """Sends something that must arrive, and remembers in which record it went."""
        if kind == "data":
            stream, start, end = what
            out, lane = stream.out, path.busy_lane() if len(stream.out) > 4096 else 0
            known = 0 if lane else path.ends.get(("out", stream.id), 0)  # 4.4: what the offset is without being said
            offset = b"" if known == start else varint(start)
            if not lane:
                path.ends["out", stream.id] = end
            frame = bytes([0x20 | (end == len(out)) | bool(offset) << 1]) + varint(stream.id) + offset + out[start:end]
            return path.send(frame, [(kind, *what)], lane=lane)
        elif kind == "class credit":
            frame = varint(MAX_DATA) + varint(REQUESTS) + varint(self.class_granted)
        else:
            frame = varint(MAX_STREAM_DATA) + varint(what[0].id) + varint(what[0].granted)
        path.send(frame, [(kind, *what)])

    def answer(self, stream):
        while not stream.complete():
            self.pump()
        del self.streams[stream.id]
        reader = Reader(bytes(stream.answer))
        tag = reader.varint()
        if tag & 1:
            reader.counted()  # metadata, of no interest here
        self.known.add(stream.method)
        if tag >> 1 == 0:
            return 0, reader.rest()
        flags = reader.varint()
        reason = reader.varint() if flags & 4 else None
        if flags & 8:
            reader.varint()  # when to try again
        if reason == 1:
            self.known.discard(stream.method)  # the head was not read to its end
        return tag >> 1, reader.text()

    # ---- 4: what comes in

    def pump(self):
        path = self.paths[0]
        for body in path.records():
            reader = Reader(body)
            while reader.at < len(body):
                self.take_frame(path, reader)
        if path.live:
            path.acknowledge()

    def take_frame(self, path, reader):
        kind = reader.varint()
        require(not path.lane.number or 0x20 <= kind <= 0x27 or kind >= 0x40, "a frame that no other lane has")
        if kind == ACK_HERE:
            count, _ = reader.varint(), reader.varint()
            return self.take_ack(path, path.id, 0, count)
        if kind == ACK_LANES:
            reader.varint()
            return [self.take_ack(path, path.id, lane, count) for lane, count in reader.counts(2)]
        if kind in (WELCOME, JOINED, REJECT):
            message = reader.counted()
            if kind == REJECT:
                reject = Reader(message)
                raise ProtocolError(f"REJECT {reject.varint()}: {reject.text()} {reject.text()}")
            require(not path.live and (kind == JOINED) == hasattr(path, "join"), "handshake out of place")
            path.lane.ack_due = True
            return (self.take_welcome if kind == WELCOME else self.take_joined)(path, message)
        require(path.live, f"frame {kind:#x} before the handshake")
        if 0x20 <= kind <= 0x27:
            number = reader.varint()
            known = 0 if path.lane.number else path.ends.get(("in", number), 0)
            offset = reader.varint() if kind & 2 else known
            data = reader.counted() if kind & 4 else reader.rest()
            if not path.lane.number:
                path.ends["in", number] = offset + len(data)
            self.take_data(path, number, offset, data, bool(kind & 1))
        elif 0x28 <= kind <= 0x2B:
            reader.varint(), kind & 2 and reader.varint(), reader.counted() if kind & 1 else reader.rest()
        elif kind == ACK:
            return self.take_ack(path, reader.varint(), reader.varint(), (reader.varint(), reader.varint())[0])
        elif kind == PING:
            path.send(varint(PONG) + varint(reader.varint()))
        elif kind == PONG:
            return reader.varint()
        elif kind == MAX_DATA:
            which, value = reader.varint(), reader.varint()
            self.max_data = max(self.max_data, value) if which == REQUESTS else self.max_data
        elif kind == MAX_STREAMS:
            which, value = reader.varint(), reader.varint()
            self.max_streams = max(self.max_streams, value) if which == REQUESTS << 2 else self.max_streams
        elif kind == RESET_STREAM:
            raise ProtocolError("the server reset stream %d with code %d" % (reader.varint(), reader.varint()))
        elif kind in (STOP_SENDING, MAX_STREAM_DATA):
            reader.varint(), reader.varint()  # our requests are sent whole, within the first credit
        elif kind == PATH_STATUS:
            [reader.varint() for _ in range(4)]
        elif kind == ADVERTISE:
            reader.varint(), [reader.text() for _ in range(reader.varint())]
        elif kind == PATH_ABANDON:
            number, _ = reader.varint(), reader.varint()
            for lane, count in reader.counts(2):
                self.take_ack(path, number, lane, count)
            require(number != path.id, "the server gave this path up")
        elif kind == GOAWAY:
            print("the server drains:", reader.varint(), reader.text(), reader.text())
        elif kind == CLOSE:
            raise ProtocolError(f"the server closed the session: {reader.varint()} {reader.text()}")
        elif kind >= 0x40:
            return reader.counted()  # an extension elicits nothing
        else:
            raise ProtocolError(f"unknown frame {kind:#x}")
        path.lane.ack_due = True

    def take_data(self, path, number, offset, data, fin):
        stream = self.streams.get(number)
        require(number & 0x3F == REQUESTS << 3 and number >> 6 < self.next_index, "a stream that we never opened")
        if stream is None:
            return  # answered and forgotten: a late repeat
        before = len(stream.answer)
        self.came += stream.take(offset, data, fin)
        require(self.came <= self.class_granted, "beyond the class's credit")
        self.consumed += len(stream.answer) - before
        if self.class_granted - self.consumed < CLASS_WINDOW // 2:
            self.class_granted = self.consumed + CLASS_WINDOW
            self.put(path, "class credit")
        if stream.final is None and stream.granted - len(stream.answer) < WINDOW // 2:
            stream.granted = len(stream.answer) + WINDOW
            self.put(path, "stream credit", stream)

    def close(self):
        path = self.paths[0]
        path.send(varint(CLOSE) + varint(0) + counted(b"done"))
        path.sock.shutdown(socket.SHUT_WR)
        while path.sock.recv(65536):
            pass

def main():
    method = sys.argv[2] if len(sys.argv) > 2 else "echo"
    session = Session(sys.argv[1])
    session.connect()
    print("session", session.id.hex(), "on path 0")
    print("first answer: ", *session.answer(session.request(method, b"over the first connection")))
    # 6.2: Python's ssl has no exporter to bind a JOIN to, and what speaks TLS for us ($SHEETBEND_UNBOUND) gives us none.
    if not sys.argv[1].startswith(("tls://", "wss://")) and "SHEETBEND_UNBOUND" not in os.environ:
        pending = session.request(method, b"cut off, delivered once")
        session.cut()
        again = session.resume()
        print(f"joined on path {session.paths[0].id}; {again} record(s) sent again")
        print("second answer:", *session.answer(pending))
    large = os.urandom(100_000)
    status, payload = session.answer(session.request(method, large))
    print("third answer: ", status, "100000 bytes back unchanged" if payload == large else payload[:60])
    lanes = [path.coming.keys() | path.out.keys() for path in session.paths]
    session.close()
    if len(lanes[0]) > 1:
        print("lanes in use beside the first:", len(lanes[0]) - 1)
    print("closed")

if __name__ == "__main__":
    main()
