//! QUIC: what strangers send to an endpoint, a pair of ends whose datagrams somebody on the way changes, and the
//! streams that are lanes.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bolero::check;
use bytes::{Bytes, BytesMut};
use sheetbend_core::carrier::quic::{
    Arrival, ClientQuic, Connection, Dir, Endpoint, EndpointSettings, Event, From, QuicSettings,
    QuicStreamId, Read, ServerQuic,
};
use sheetbend_core::carrier::tls::{ClientTls, ServerTls, Trust};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::{put_lane_number, take_lane_number};
use sheetbend_fuzz::input::Input;

macro_rules! cert {
    ($name:literal) => {
        include_bytes!(concat!("../../../core/tests/certs/", $name))
    };
}

const EPOCH: Duration = Duration::from_secs(1_767_225_600);
const DELAY: Duration = Duration::from_millis(5);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443);
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5000);
const ELSEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 6000);
/// What the ends tell each other.
const WORDS: usize = 20_000;
/// Steps of one run.
const STEPS: usize = 400;

static TLS: LazyLock<ServerTls> =
    LazyLock::new(|| ServerTls::from_pem(cert!("server.pem"), cert!("server.key")).expect("sound"));
static TRUSTING: LazyLock<ClientQuic> = LazyLock::new(|| {
    let trust = Trust::Pins(TLS.pin().into_iter().collect());
    ClientQuic::new(&ClientTls::new(&trust).expect("sound"), &QuicSettings::default()).expect("sound")
});
#[allow(clippy::disallowed_methods, reason = "what time zero is does not matter")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn endpoint(seed: u8, server: bool) -> Endpoint {
    let settings = EndpointSettings {
        seed: [seed; 32],
        origin: *ORIGIN,
        epoch: EPOCH,
        keeps_whole: true,
        server: server.then(|| ServerQuic::new(&TLS, &QuicSettings::default())),
    };
    Endpoint::new(settings).expect("sound")
}

fn from(remote: SocketAddr) -> From {
    From {
        remote,
        local_ip: None,
        ecn: None,
    }
}

/// Whatever comes to a server, it keeps nothing for it, answers no more than was sent three times over, and does not
/// panic.
#[test]
fn strangers() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let mut server = endpoint(2, true);
        while !input.is_empty() {
            let len = 1 + input.below(1500);
            let mut datagram = input.take(len).to_vec();
            if input.flag() {
                datagram.resize(1200, 0);
            }
            let mut response = Vec::new();
            let len = datagram.len();
            let arrival = server.handle_datagram(
                Timestamp::ZERO,
                from(ELSEWHERE),
                BytesMut::from(&datagram[..]),
                &mut response,
            );
            if let Some(Arrival::Response(transmit)) = arrival {
                assert!(transmit.size <= 3 * len, "{} for {len}", transmit.size);
            }
        }
        assert!(server.connections() <= 16);
    });
}

struct Flying {
    at: Timestamp,
    to_server: bool,
    from: SocketAddr,
    data: Vec<u8>,
}

/// A connection, its endpoint, and what it has read of what the other end says.
struct End {
    endpoint: Endpoint,
    connection: Option<Connection>,
    stream: Option<QuicStreamId>,
    read: usize,
    written: usize,
    over: bool,
}

fn word(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8
}

impl End {
    fn new(endpoint: Endpoint, connection: Option<Connection>) -> End {
        End {
            endpoint,
            connection,
            stream: None,
            read: 0,
            written: 0,
            over: false,
        }
    }

    fn take(&mut self, now: Timestamp, remote: SocketAddr, data: &[u8], answers: &mut Vec<Vec<u8>>) {
        let mut response = Vec::new();
        let data = BytesMut::from(data);
        match self
            .endpoint
            .handle_datagram(now, from(remote), data, &mut response)
        {
            Some(Arrival::Event(handle, event)) => {
                if let Some(connection) = self.connection.as_mut().filter(|own| own.handle() == handle) {
                    connection.handle_events(now, [event]);
                }
            }
            Some(Arrival::New(connection)) => {
                self.connection.get_or_insert(*connection);
            }
            Some(Arrival::Response(transmit)) => answers.push(response[..transmit.size].to_vec()),
            None => {}
        }
    }

    /// Does what can be done, and gives what is to be sent.
    fn work(&mut self, now: Timestamp, client: bool) -> Vec<Vec<u8>> {
        let Some(connection) = &mut self.connection else {
            return Vec::new();
        };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Connected if client => self.stream = connection.open(Dir::Bi),
                Event::ConnectionLost { .. } => self.over = true,
                _ => {}
            }
        }
        if !client && self.stream.is_none() {
            self.stream = connection.accept(Dir::Bi);
        }
        if let Some(id) = self.stream.filter(|_| !self.over) {
            let rest: Vec<u8> = (self.written..WORDS).map(word).collect();
            if !rest.is_empty() {
                self.written += connection.write(id, &mut [Bytes::from(rest)]).unwrap_or(0);
            }
            let read = &mut self.read;
            let outcome = connection.read(id, usize::MAX, |chunk| {
                for byte in chunk.iter() {
                    assert_eq!(*byte, word(*read), "what is read was written");
                    *read += 1;
                }
                usize::MAX
            });
            assert_ne!(outcome, Read::Finished, "nobody has said so");
        }
        let mut out = Vec::new();
        loop {
            let mut buffer = Vec::new();
            match connection.poll_transmit(now, 1, &mut buffer) {
                Some(transmit) => out.push(buffer[..transmit.size].to_vec()),
                None => break,
            }
        }
        while let Some(event) = connection.poll_endpoint_event() {
            if let Some(answer) = self.endpoint.handle_event(connection.handle(), event) {
                connection.handle_events(now, [answer]);
            }
        }
        out
    }
}

/// Two ends whose datagrams are lost, doubled, delayed, cut and changed as the input says: what is read is what was
/// written.
#[test]
fn pairs() {
    check!().for_each(|bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let mut client = endpoint(1, false);
        let mut now = Timestamp::ZERO;
        let connection = client.connect(now, &TRUSTING, SERVER, "server").expect("sound");
        let mut ends = [
            End::new(client, Some(connection)),
            End::new(endpoint(2, true), None),
        ];
        let mut flying: VecDeque<Flying> = VecDeque::new();
        for _ in 0..STEPS {
            for (index, end) in ends.iter_mut().enumerate() {
                let own = if index == 0 { CLIENT } else { SERVER };
                for mut data in end.work(now, index == 0) {
                    let mut at = now + DELAY;
                    let mut copies = 1;
                    let mut source = own;
                    match input.below(16) {
                        0 => copies = 0,
                        1 => copies = 2,
                        2 => at += Duration::from_millis(input.byte().into()),
                        3 => data.truncate(input.below(data.len().max(1))),
                        4 => {
                            let place = input.below(data.len().max(1));
                            if let Some(byte) = data.get_mut(place) {
                                *byte ^= input.byte();
                            }
                        }
                        5 => source = ELSEWHERE,
                        _ => {}
                    }
                    for _ in 0..copies {
                        flying.push_back(Flying {
                            at,
                            to_server: index == 0,
                            from: source,
                            data: data.clone(),
                        });
                    }
                }
            }
            let timeouts = ends
                .iter_mut()
                .filter_map(|end| end.connection.as_mut()?.poll_timeout());
            let next = timeouts.chain(flying.iter().map(|flying| flying.at)).min();
            let Some(next) = next else { break };
            now = now.max(next);
            let due = flying.iter().position(|flying| flying.at <= now);
            if let Some(flying_one) = due.and_then(|index| flying.remove(index)) {
                let mut answers = Vec::new();
                let to = usize::from(flying_one.to_server);
                ends[to].take(now, flying_one.from, &flying_one.data, &mut answers);
                let own = if to == 0 { CLIENT } else { SERVER };
                for data in answers {
                    flying.push_back(Flying {
                        at: now + DELAY,
                        to_server: to == 0,
                        from: own,
                        data,
                    });
                }
            }
        }
    });
}

/// The number of a lane, in any pieces, and back.
#[test]
fn lane_numbers() {
    check!().for_each(|bytes: &[u8]| {
        for end in 0..=bytes.len().min(9) {
            let mut input = &bytes[..end];
            let Ok(Some(number)) = take_lane_number(&mut input) else {
                continue;
            };
            if let Ok(number) = u16::try_from(number) {
                let mut again = Vec::new();
                put_lane_number(&mut again, number);
                assert_eq!(again, bytes[..end - input.len()], "there is one way to write it");
            }
        }
    });
}
