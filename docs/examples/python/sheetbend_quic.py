"""QUIC (14.8) and WebTransport over HTTP/3 (14.9) for sheetbend_client.py, by the package `aioquic`: `quic://`, and
`wt://` or `https+wt://`. Servers are believed by the certificates in $SSL_CERT_FILE.
"""
import os, socket, time, urllib.parse
from aioquic import tls
from aioquic.h3.connection import FrameType, H3Connection
from aioquic.h3.events import HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (ConnectionTerminated, HandshakeCompleted, ProtocolNegotiated, StreamDataReceived,
                                 StreamReset)

class Exporting(tls.KeySchedule):
    """aioquic has no exporter (RFC 8446 section 7.5): its secret is kept when the transcript is what it is made of."""
    made = None

    def derive_secret(self, label):
        if label == b"s ap traffic":
            Exporting.made = self.algorithm, super().derive_secret(b"exp master"), self.hash_empty_value
        return super().derive_secret(label)

tls.KeySchedule = Exporting

def expand(algorithm, secret, label, value, size):
    return tls.hkdf_expand_label(algorithm=algorithm, secret=secret, label=label, hash_value=value, length=size)

class Quic:
    """The client's first stream is lane 0. Nobody else reads or writes the UDP socket, so it is driven while we wait."""

    def __init__(self, url):
        url = urllib.parse.urlsplit(url)
        self.h3 = None
        web = url.scheme != "quic"
        config = QuicConfiguration(is_client=True, alpn_protocols=["h3" if web else "sheetbend/1"],
                                   server_name=url.hostname, max_datagram_frame_size=65536,
                                   cafile=os.environ.get("SSL_CERT_FILE"))
        self.address = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_DGRAM)[0][4]
        family = socket.AF_INET6 if len(self.address) == 4 else socket.AF_INET
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.quic = QuicConnection(configuration=config)
        self.connected, self.ended, self.headers = False, False, None
        self.inbox = {}  # of each stream: what came, and has not been taken
        self.quic.connect(self.address, now=time.monotonic())
        self.drive(lambda: self.connected)
        algorithm, secret, empty = Exporting.made
        named = expand(algorithm, secret, b"EXPORTER-sheetbend/1", empty, algorithm.digest_size)
        self.exporter = expand(algorithm, named, b"exporter", empty, 32)
        if web:
            self.ask(url)
            self.lane0 = self.h3.create_webtransport_stream(self.session)
            with self.h3._get_or_create_stream(self.lane0) as lane:  # or aioquic takes what comes on it for HTTP
                lane.frame_type, lane.session_id = FrameType.WEBTRANSPORT_STREAM, self.session
        else:
            self.lane0 = self.quic.get_next_available_stream_id()

    def ask(self, url):
        """An extended CONNECT makes the session (RFC 9220)."""
        self.session = self.quic.get_next_available_stream_id()
        fields = {":method": "CONNECT", ":scheme": "https", ":protocol": "webtransport", ":authority": url.netloc,
                  ":path": url.path or "/", "sec-webtransport-http3-draft02": "1"}
        self.h3.send_headers(self.session, [(name.encode(), value.encode()) for name, value in fields.items()])
        self.drive(lambda: self.headers)
        if self.headers.get(b":status") != b"200":
            raise ConnectionError(f"the server answers {self.headers}")

    def flush(self):
        for data, address in self.quic.datagrams_to_send(time.monotonic()):
            self.udp.sendto(data, address)

    def drive(self, done):
        """Sends and receives until `done` or the connection's end, ten seconds at most."""
        limit = time.monotonic() + 10
        while not done() and not self.ended:
            self.flush()
            now, timer = time.monotonic(), self.quic.get_timer()
            if now > limit:
                raise TimeoutError("the server is silent")
            self.udp.settimeout(max(0.001, min(limit, timer or limit) - now))
            try:
                self.quic.receive_datagram(*self.udp.recvfrom(65536), now=time.monotonic())
            except TimeoutError:
                self.quic.handle_timer(time.monotonic())
            self.take_events()

    def take_events(self):
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, ProtocolNegotiated) and event.alpn_protocol == "h3":
                self.h3 = H3Connection(self.quic, enable_webtransport=True)
            elif isinstance(event, HandshakeCompleted):
                self.connected = True
            elif isinstance(event, ConnectionTerminated):
                self.ended = True
                if not self.connected:
                    raise ConnectionError(f"refused: {event.reason_phrase or hex(event.error_code)}")
            elif isinstance(event, StreamReset):
                self.inbox[event.stream_id] = [b""]
            elif self.h3:
                for said in self.h3.handle_event(event):
                    self.take_http(said)
            elif isinstance(event, StreamDataReceived):
                self.take(event.stream_id, event.data, event.end_stream)

    def take_http(self, event):
        if isinstance(event, HeadersReceived):
            self.headers = dict(event.headers)
        elif isinstance(event, WebTransportStreamDataReceived):
            self.take(event.stream_id, event.data, event.stream_ended)

    def take(self, stream, data, ended):
        pieces = self.inbox.setdefault(stream, [])
        if data:
            pieces.append(data)
        if ended:
            pieces.append(b"")

    # ---- what a socket has

    def sendall(self, data):
        self.send_on(self.lane0, data)

    def recv(self, _):
        self.drive(lambda: self.inbox.get(self.lane0))
        pieces = self.inbox.get(self.lane0)
        return pieces.pop(0) if pieces else b""

    # ---- lanes: the streams in one direction

    def open_lane(self):
        if self.h3:
            return self.h3.create_webtransport_stream(self.session, is_unidirectional=True)
        return self.quic.get_next_available_stream_id(is_unidirectional=True)

    def send_on(self, stream, data):
        self.quic.send_stream_data(stream, data)
        self.flush()

    def recv_any(self, lanes):
        """What came on some stream, 0 standing for the first; on others only if `lanes` are wanted."""
        def ready():
            return next((stream for stream, pieces in sorted(self.inbox.items())
                         if pieces and (lanes or stream == self.lane0)), None)
        self.drive(lambda: ready() is not None)
        stream = ready()
        if stream is None:
            return 0, b""
        return 0 if stream == self.lane0 else stream, self.inbox[stream].pop(0)

    def shutdown(self, _):
        self.quic.send_stream_data(self.lane0, b"", end_stream=True)
        self.flush()

    def close(self):
        self.udp.close()  # without a word, as a network does
