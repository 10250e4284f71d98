"""A WebTransport server of `aioquic` that carries every stream and datagram of a session on to another server, to try
our client against it.

    webtransport.py CERTIFICATE KEY 127.0.0.1:4433     prints its address
"""
import asyncio, os, sys
from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import FrameType, H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

TARGET = sys.argv[3]

class Leg(QuicConnectionProtocol):
    """One of the two connections. What comes on one goes out on the other."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.h3 = H3Connection(self._quic, enable_webtransport=True)
        self.session, self.other, self.waiting, self.streams = None, None, [], {}
        self.answered = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and self.other:
            self.other.close()
        if isinstance(event, StreamReset) and event.stream_id in self.streams:
            self.other._quic.reset_stream(self.streams[event.stream_id], event.error_code)
            self.other.transmit()
        for said in self.h3.handle_event(event):
            if isinstance(said, HeadersReceived):
                self.headers(said.stream_id, dict(said.headers))
            elif self.other:
                self.carry(said)
            else:
                self.waiting.append(said)

    def headers(self, stream, fields):
        if b":status" in fields:
            self.answered.set_result(fields[b":status"])
        elif fields.get(b":protocol") == b"webtransport" and self.session is None:
            self.session = stream
            print("a session for", fields[b":authority"].decode() + fields[b":path"].decode(), flush=True)
            self.task = asyncio.create_task(self.reach())

    async def reach(self):
        """Asks the other server for a session, and only then grants ours."""
        host, port = TARGET.rsplit(":", 1)
        config = QuicConfiguration(is_client=True, alpn_protocols=["h3"], max_datagram_frame_size=65536,
                                   server_name=host, cafile=os.environ["SSL_CERT_FILE"])
        async with connect(host, int(port), configuration=config, create_protocol=Leg) as other:
            other.session = other._quic.get_next_available_stream_id()
            fields = {":method": "CONNECT", ":scheme": "https", ":protocol": "webtransport", ":authority": TARGET,
                      ":path": "/", "sec-webtransport-http3-draft02": "1"}
            other.h3.send_headers(other.session, [(n.encode(), v.encode()) for n, v in fields.items()])
            other.transmit()
            status = await other.answered
            self.h3.send_headers(self.session, [(b":status", status)], end_stream=status != b"200")
            self.other, other.other = other, self
            for leg in (self, other):
                waiting, leg.waiting = leg.waiting, []
                for said in waiting:
                    leg.carry(said)
            self.transmit()
            await other.wait_closed()

    def carry(self, said):
        other = self.other
        if isinstance(said, DatagramReceived):
            other.h3.send_datagram(other.session, said.data)
        elif isinstance(said, WebTransportStreamDataReceived):
            if said.stream_id not in self.streams:
                one_way = bool(said.stream_id & 2)
                to = other.h3.create_webtransport_stream(other.session, is_unidirectional=one_way)
                if not one_way:  # or aioquic takes what comes on it for HTTP
                    with other.h3._get_or_create_stream(to) as lane:
                        lane.frame_type, lane.session_id = FrameType.WEBTRANSPORT_STREAM, other.session
                self.streams[said.stream_id], other.streams[to] = to, said.stream_id
            to = self.streams[said.stream_id]
            other._quic.send_stream_data(to, said.data, end_stream=said.stream_ended)
        other.transmit()

async def main():
    config = QuicConfiguration(is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536)
    config.load_cert_chain(sys.argv[1], sys.argv[2])
    server = await serve("127.0.0.1", 0, configuration=config, create_protocol=Leg)
    print("listening on %s:%d" % server._transport.get_extra_info("sockname")[:2], flush=True)
    await asyncio.Future()

asyncio.run(main())
