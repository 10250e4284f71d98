//! Endpoints against each other on a clock that moves from deadline to deadline, and against what is no QUIC.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{Dir, Event, StreamEvent, StreamId};

mod early;
mod hostile;

use super::*;
use crate::carrier::tls::{ClientTls, ServerTls, TlsError, Trust, certificates};
use crate::time::Timestamp;

macro_rules! cert {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/certs/", $name))
    };
}

/// 2026-06-01.
const EPOCH: Duration = Duration::from_secs(1_780_272_000);
const DELAY: Duration = Duration::from_millis(10);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443);
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5000);
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 6000);

#[allow(clippy::disallowed_methods, reason = "what time zero is does not matter")]
fn origin() -> Instant {
    Instant::now()
}

fn server_tls() -> ServerTls {
    ServerTls::from_pem(cert!("server.pem"), cert!("server.key")).unwrap()
}

fn client_quic(trust: Trust) -> ClientQuic {
    ClientQuic::new(&ClientTls::new(&trust).unwrap(), &QuicSettings::default()).unwrap()
}

fn trusting() -> ClientQuic {
    client_quic(Trust::Pins(server_tls().pin().into_iter().collect()))
}

fn endpoint(seed: u8, server: Option<QuicSettings>) -> Endpoint {
    Endpoint::new(EndpointSettings {
        seed: [seed; 32],
        origin: origin(),
        epoch: EPOCH,
        keeps_whole: true,
        server: server.map(|settings| ServerQuic::new(&server_tls(), &settings)),
    })
    .unwrap()
}

/// A datagram under way.
#[derive(Clone)]
struct Flying {
    from: SocketAddr,
    to: SocketAddr,
    at: Timestamp,
    data: Vec<u8>,
}

/// A client and a server, and a network of one fixed delay.
struct World {
    now: Timestamp,
    client: Endpoint,
    server: Endpoint,
    near: Connection,
    far: Option<Connection>,
    client_at: SocketAddr,
    flying: VecDeque<Flying>,
    /// All that was ever sent.
    sent: Vec<Flying>,
    lost: Vec<QuicError>,
    connected: usize,
}

fn pump(now: Timestamp, endpoint: &mut Endpoint, connection: &mut Connection) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut out = Vec::new();
    loop {
        let mut buffer = Vec::new();
        let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) else {
            break;
        };
        out.push((transmit.destination, buffer[..transmit.size].to_vec()));
    }
    while let Some(event) = connection.poll_endpoint_event() {
        if let Some(answer) = endpoint.handle_event(connection.handle(), event) {
            connection.handle_events(now, [answer]);
        }
    }
    out
}

impl World {
    fn new(client: &ClientQuic, settings: QuicSettings) -> World {
        let mut ours = endpoint(1, None);
        let server = endpoint(2, Some(settings));
        let near = ours.connect(Timestamp::ZERO, client, SERVER, "server").unwrap();
        World {
            now: Timestamp::ZERO,
            client: ours,
            server,
            near,
            far: None,
            client_at: CLIENT,
            flying: VecDeque::new(),
            sent: Vec::new(),
            lost: Vec::new(),
            connected: 0,
        }
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        let at = self.now + DELAY;
        let flying = Flying { from, to, at, data };
        self.sent.push(flying.clone());
        self.flying.push_back(flying);
    }

    fn send(&mut self) {
        let from = self.client_at;
        for (to, data) in pump(self.now, &mut self.client, &mut self.near) {
            self.post(from, to, data);
        }
        if let Some(far) = &mut self.far {
            for (to, data) in pump(self.now, &mut self.server, far) {
                self.post(SERVER, to, data);
            }
        }
    }

    /// Every datagram that was sent, with its moment.
    fn all_sent(&self) -> Vec<(Timestamp, Vec<u8>)> {
        let sent = self.sent.iter();
        sent.map(|flying| (flying.at, flying.data.clone())).collect()
    }

    /// What the server's endpoint does with a datagram. The connection that it begins is kept, if it is the first.
    fn give_server(&mut self, from: SocketAddr, data: &[u8]) -> Option<Vec<u8>> {
        let mut response = Vec::new();
        let from = From {
            remote: from,
            local_ip: None,
            ecn: None,
        };
        match self
            .server
            .handle_datagram(self.now, from, BytesMut::from(data), &mut response)?
        {
            Arrival::Event(handle, event) => {
                if let Some(far) = self.far.as_mut().filter(|far| far.handle() == handle) {
                    far.handle_events(self.now, [event]);
                }
                None
            }
            Arrival::New(connection) => {
                self.far.get_or_insert(*connection);
                None
            }
            Arrival::Response(_) => Some(response),
        }
    }

    fn give_client(&mut self, data: &[u8]) {
        let mut response = Vec::new();
        let from = From {
            remote: SERVER,
            local_ip: None,
            ecn: None,
        };
        if let Some(Arrival::Event(_, event)) =
            self.client
                .handle_datagram(self.now, from, BytesMut::from(data), &mut response)
        {
            self.near.handle_events(self.now, [event]);
        }
    }

    /// Goes on to the next thing that happens; `false` if nothing ever will.
    fn step(&mut self) -> bool {
        self.send();
        let arrival = self.flying.front().map(|flying| flying.at);
        let near = self.near.poll_timeout();
        let far = self.far.as_mut().and_then(Connection::poll_timeout);
        let Some(next) = [arrival, near, far].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        while self.flying.front().is_some_and(|flying| flying.at <= self.now) {
            let Some(flying) = self.flying.pop_front() else {
                break;
            };
            if flying.to == SERVER {
                if let Some(answer) = self.give_server(flying.from, &flying.data) {
                    self.post(SERVER, flying.from, answer);
                }
            } else if flying.to == self.client_at {
                self.give_client(&flying.data);
            }
        }
        let now = self.now;
        for connection in [Some(&mut self.near), self.far.as_mut()].into_iter().flatten() {
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
            while let Some(event) = connection.poll_event() {
                match event {
                    Event::Connected => self.connected += 1,
                    Event::ConnectionLost { reason } => {
                        let why = connection.why(reason);
                        self.lost.push(why);
                    }
                    _ => {}
                }
            }
        }
        true
    }

    fn run_until(&mut self, mut done: impl FnMut(&mut World) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            assert!(self.step(), "nothing will ever happen: {:?}", self.lost);
        }
        panic!("it does not come to an end");
    }

    fn connect(&mut self) {
        self.run_until(|world| world.connected == 2);
    }

    fn open(&mut self) -> StreamId {
        self.near.open(Dir::Bi).unwrap()
    }
}

fn received(connection: &mut Connection, id: StreamId) -> (Vec<u8>, Read) {
    let mut all = Vec::new();
    let read = connection.read(id, usize::MAX, |chunk| {
        all.extend_from_slice(&chunk);
        usize::MAX
    });
    (all, read)
}

#[test]
fn bytes_go_both_ways_and_end() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    world.connect();
    assert_eq!(world.near.protocol(), Some(Protocol::Native));
    let id = world.open();
    assert_eq!(world.near.write_slice(id, b"hello"), Ok(5));
    world.near.finish(id);
    let mut came = Vec::new();
    world.run_until(|world| {
        let far = world.far.as_mut().unwrap();
        while let Some(event) = far.poll_event() {
            if matches!(event, Event::Stream(StreamEvent::Opened { dir: Dir::Bi })) {
                let _ = far.accept(Dir::Bi);
            }
        }
        let _ = far.accept(Dir::Bi);
        let (more, read) = received(far, id);
        came.extend(more);
        read == Read::Finished
    });
    assert_eq!(came, b"hello");
    let far = world.far.as_mut().unwrap();
    assert_eq!(far.exporter(), world.near.exporter());
    assert!(far.exporter().is_some());
    world.near.close(world.now, 0, b"done");
    world.run_until(|world| !world.lost.is_empty());
    assert!(matches!(&world.lost[0], QuicError::Closed { code: 0, reason } if reason == "done"));
}

#[test]
fn what_tls_thinks_of_a_certificate_is_told() {
    let roots = Trust::Roots(certificates(cert!("other-ca.pem")).unwrap());
    let mut world = World::new(&client_quic(roots), QuicSettings::default());
    world.run_until(|world| !world.lost.is_empty());
    assert_eq!(world.lost[0], QuicError::Tls(TlsError::UnknownIssuer));
    let pins = Trust::Pins(vec![
        ServerTls::from_pem(cert!("renewed.pem"), cert!("renewed.key"))
            .unwrap()
            .pin()
            .unwrap(),
    ]);
    let mut world = World::new(&client_quic(pins), QuicSettings::default());
    world.run_until(|world| !world.lost.is_empty());
    assert!(matches!(world.lost[0], QuicError::Tls(TlsError::WrongPin(_))));
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    // The key is one of Ed25519, whose signatures need no randomness.
    let run = || {
        let mut world = World::new(&trusting(), QuicSettings::default());
        world.connect();
        let id = world.open();
        let _ = world.near.write_slice(id, &[7; 5000]);
        for _ in 0..50 {
            world.step();
        }
        world.all_sent()
    };
    assert!(run() == run());
}

// ---- bad input ----

#[test]
fn other_versions_are_answered_with_ours_and_only_where_that_is_no_amplification() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    let mut datagram = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4b, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    assert_eq!(world.give_server(CLIENT, &datagram), None);
    datagram.resize(1200, 0);
    let answer = world.give_server(CLIENT, &datagram).unwrap();
    assert_eq!(answer[1..5], [0; 4], "version negotiation");
    assert!(answer.len() < datagram.len());
    assert_eq!(world.server.connections(), 0);
}

#[test]
fn garbage_and_cut_packets_change_nothing() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    let mut rng = crate::rng::Rng::from_seed([3; 32]);
    world.send();
    let first = world.sent[0].data.clone();
    for len in 0..1500 {
        let mut garbage = vec![0; len];
        rng.fill(&mut garbage);
        let _ = world.give_server(ELSEWHERE, &garbage);
    }
    for cut in (0..first.len()).step_by(7) {
        let _ = world.give_server(ELSEWHERE, &first[..cut]);
    }
    let mut damaged = first;
    for index in (0..damaged.len()).step_by(11) {
        damaged[index] ^= 1 << (index % 8);
        let _ = world.give_server(ELSEWHERE, &damaged);
        damaged[index] ^= 1 << (index % 8);
    }
    // What does not authenticate is forgotten at once.
    assert!(world.server.handshaking() <= 1, "{:?}", world.server);
    world.far = None;
    world.server = endpoint(2, Some(QuicSettings::default()));
    world.connect();
}

fn first_datagram(seed: u8) -> Vec<u8> {
    let mut client = endpoint(seed, None);
    let mut connection = client
        .connect(Timestamp::ZERO, &trusting(), SERVER, "server")
        .unwrap();
    let sent = pump(Timestamp::ZERO, &mut client, &mut connection);
    sent.into_iter().next().unwrap().1
}

#[test]
fn a_flood_of_first_packets_is_told_to_prove_itself_and_then_refused() {
    let settings = QuicSettings {
        retry_above: 3,
        ..QuicSettings::default()
    };
    let mut world = World::new(&trusting(), settings);
    for number in 0..50 {
        let first = first_datagram(100 + number);
        let answer = world.give_server(SocketAddr::new(CLIENT.ip(), 1000 + u16::from(number)), &first);
        if number >= 3 {
            let answer = answer.expect("a retry");
            assert_eq!(answer[0] & 0xf0, 0xf0, "a retry packet");
            assert!(answer.len() <= 3 * first.len());
        }
    }
    assert_eq!((world.server.handshaking(), world.server.connections()), (3, 3));
    // An honest client proves itself, and gets through.
    world.far = None;
    world.connect();
    let settings = QuicSettings {
        retry_above: 0,
        max_handshakes: 0,
        ..QuicSettings::default()
    };
    let mut world = World::new(&trusting(), settings);
    world.run_until(|world| !world.lost.is_empty());
    assert!(matches!(world.lost[0], QuicError::Refused(_)), "{:?}", world.lost);
    assert_eq!(world.server.connections(), 0);
}

#[test]
fn a_token_of_a_retry_is_of_no_use_elsewhere_or_later() {
    let settings = QuicSettings {
        retry_above: 0,
        ..QuicSettings::default()
    };
    let mut world = World::new(&trusting(), settings);
    // First packet, retry, first packet again, which is still under way.
    while world.sent.iter().filter(|flying| flying.to == SERVER).count() < 2 {
        world.step();
        world.send();
    }
    let with_token = world
        .sent
        .iter()
        .rfind(|flying| flying.to == SERVER)
        .unwrap()
        .data
        .clone();
    assert!(world.give_server(ELSEWHERE, &with_token).is_some(), "a refusal");
    assert_eq!(world.server.connections(), 0);
    world.now += Duration::from_secs(11);
    assert!(world.give_server(CLIENT, &with_token).is_some(), "a refusal");
    assert_eq!(world.server.connections(), 0);
}

#[test]
fn an_address_that_is_not_proven_gets_little_and_is_left_again() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    world.connect();
    let id = world.open();
    let _ = world.near.write_slice(id, b"begin");
    world.run_until(|world| {
        let far = world.far.as_mut().unwrap();
        far.accept(Dir::Bi).is_some()
    });
    let _ = world.far.as_mut().unwrap().write_slice(id, &[9; 200_000]);
    // Somebody on the way passes the client's packets on from an address that is not the client's.
    let mut spoofed = 0;
    for _ in 0..3 {
        let _ = world.near.write_slice(id, b"more");
        let from = world.client_at;
        for (to, data) in pump(world.now, &mut world.client, &mut world.near) {
            assert_eq!(to, SERVER);
            spoofed += data.len();
            let _ = world.give_server(ELSEWHERE, &data);
        }
        assert_eq!(from, CLIENT);
    }
    assert_eq!(world.far.as_ref().unwrap().remote(), ELSEWHERE);
    let before = world.sent.len();
    world.run_until(|world| world.far.as_ref().unwrap().remote() == CLIENT);
    let given = world.sent[before..]
        .iter()
        .filter(|flying| flying.to == ELSEWHERE);
    let given: usize = given.map(|flying| flying.data.len()).sum();
    // RFC 9000 §8.1; quinn-proto lets a packet begin while anything is left of that, and finishes it.
    assert!(given <= 3 * spoofed + 2 * 1452, "{given} bytes for {spoofed}");
}

#[test]
fn more_streams_than_allowed_cannot_be_opened() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    world.connect();
    let opened = std::iter::from_fn(|| world.near.open(Dir::Uni)).count();
    assert_eq!(opened, config::MAX_LANES as usize);
    assert!(world.near.open(Dir::Bi).is_some());
    assert!(world.near.open(Dir::Bi).is_none());
    // Streams of the other direction are not ours to use.
    let theirs = StreamId::new(quinn_proto::Side::Server, Dir::Uni, 0);
    assert!(world.near.write_slice(theirs, b"x").is_err());
    let ours = StreamId::new(quinn_proto::Side::Client, Dir::Uni, 0);
    assert_eq!(world.near.read(ours, 10, |_| 0), Read::Reset);
}

#[test]
fn a_client_goes_on_from_another_address() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    world.connect();
    let id = world.open();
    let _ = world.near.write_slice(id, b"one");
    world.run_until(|world| world.far.as_mut().unwrap().accept(Dir::Bi).is_some());
    world.client_at = ELSEWHERE;
    world.near.local_address_changed();
    let _ = world.near.write_slice(id, b"two");
    let mut came = Vec::new();
    world.run_until(|world| {
        let far = world.far.as_mut().unwrap();
        came.extend(received(far, id).0);
        came == b"onetwo" && far.remote() == ELSEWHERE
    });
    let answers = |world: &World| world.far.as_ref().unwrap().stats().frame_rx.path_response;
    world.run_until(|world| answers(world) > 0);
    assert!(world.lost.is_empty());
}

#[test]
fn keys_change_under_way() {
    let mut world = World::new(&trusting(), QuicSettings::default());
    world.connect();
    let id = world.open();
    let _ = world.near.write_slice(id, b"old");
    world.run_until(|world| world.far.as_mut().unwrap().accept(Dir::Bi).is_some());
    world.near.update_keys();
    let _ = world.near.write_slice(id, b"new");
    let mut came = Vec::new();
    world.run_until(|world| {
        came.extend(received(world.far.as_mut().unwrap(), id).0);
        came == b"oldnew"
    });
    assert!(world.lost.is_empty());
}
