//! Both ends against each other, and each against a peer that does what it must not.

mod hostile;
mod requests;

use std::sync::Arc;

use super::*;
use crate::carrier::http::Guard;

const NOW: Timestamp = Timestamp::ZERO;

fn handshake() -> ClientHandshake {
    ClientHandshake {
        authority: "localhost:4433".to_owned(),
        target: "/".to_owned(),
        origin: None,
    }
}

fn client() -> WebTransport {
    WebTransport::client(handshake())
}

fn server_at(path: &str, guard: Guard) -> WebTransport {
    WebTransport::server(ServerHandshake {
        guard: Arc::new(guard),
        path: path.into(),
    })
}

fn server() -> WebTransport {
    server_at("/", Guard::default())
}

fn stream(initiator: Side, dir: Dir, index: u64) -> StreamId {
    StreamId::new(initiator, dir, index)
}

/// The stream of the first CONNECT.
fn request_id() -> StreamId {
    stream(Side::Client, Dir::Bi, 0)
}

fn unit(kind: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_unit(&mut out, kind, value);
    out
}

fn headers(list: &[(&str, &str)]) -> Vec<u8> {
    unit(frame::HEADERS, &fields::encode(list))
}

const CONNECT: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "webtransport"),
    (":scheme", "https"),
    (":authority", "localhost:4433"),
    (":path", "/"),
];

/// A control stream with good SETTINGS.
fn control(of_server: bool) -> Vec<u8> {
    [vec![0], unit(frame::SETTINGS, &settings::ours(of_server))].concat()
}

/// A peer that sends what a test says, in pieces of that many bytes.
struct Hostile {
    machine: WebTransport,
    uni: u64,
    bi: u64,
    piece: usize,
}

impl Hostile {
    fn against(machine: WebTransport) -> Hostile {
        Hostile {
            machine,
            uni: 0,
            bi: 0,
            piece: usize::MAX,
        }
    }

    /// Against a server that has had our SETTINGS.
    fn client() -> Hostile {
        let mut peer = Hostile::against(server());
        peer.open(Dir::Uni, &control(false)).expect("good");
        peer
    }

    /// Against a client that has sent its request.
    fn server() -> Hostile {
        let mut peer = Hostile::against(client());
        peer.open(Dir::Uni, &control(true)).expect("good");
        peer.machine
            .handle_opened(stream(Side::Client, Dir::Uni, 0))
            .expect("good");
        peer.machine.handle_opened(request_id()).expect("good");
        peer.outputs();
        peer
    }

    fn next_id(&mut self, dir: Dir) -> StreamId {
        let side = !self.machine.side();
        let index = match dir {
            Dir::Uni => &mut self.uni,
            Dir::Bi => &mut self.bi,
        };
        *index += 1;
        stream(side, dir, *index - 1)
    }

    fn open(&mut self, dir: Dir, bytes: &[u8]) -> Result<StreamId, Http3Error> {
        let id = self.next_id(dir);
        self.machine.handle_opened(id)?;
        self.send(id, bytes)?;
        Ok(id)
    }

    fn send(&mut self, id: StreamId, bytes: &[u8]) -> Result<(), Http3Error> {
        for piece in bytes.chunks(self.piece) {
            self.machine
                .handle_stream(NOW, id, Bytes::copy_from_slice(piece))?;
        }
        Ok(())
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    /// The status that a request is answered with.
    fn status(&mut self) -> Option<u16> {
        self.outputs().into_iter().find_map(|output| match output {
            Output::Send { bytes, .. } => {
                let mut bytes = bytes;
                let unit = units::Units::default().next(&mut bytes, |kind, _| match kind {
                    frame::HEADERS => Ok(units::Plan::Whole),
                    _ => Err(()),
                });
                match unit {
                    Ok(Some(units::Unit::Whole { value, .. })) => {
                        request::status(fields::decode(&value).expect("ours")).ok()
                    }
                    _ => None,
                }
            }
            _ => None,
        })
    }
}

fn code_of(result: Result<impl std::fmt::Debug, Http3Error>) -> u64 {
    result.expect_err("refused").code
}

/// Whether the peer's stream was refused with a code, and nothing else happened to it.
fn refused(outputs: &[Output], id: StreamId, with: u64) -> bool {
    let stop = outputs.contains(&Output::Stop { id, code: with });
    let reset = outputs.contains(&Output::Reset { id, code: with });
    stop && reset == (id.dir() == Dir::Bi)
}

/// Two ends and what lies between them.
struct Pair {
    ends: [WebTransport; 2],
    opened: [[u64; 2]; 2],
    piece: usize,
}

impl Pair {
    fn new(client: WebTransport, server: WebTransport, piece: usize) -> Pair {
        Pair {
            ends: [client, server],
            opened: [[0; 2]; 2],
            piece,
        }
    }

    fn open(&mut self, from: usize, dir: Dir) -> StreamId {
        let index = &mut self.opened[from][dir as usize];
        *index += 1;
        let id = stream(self.ends[from].side(), dir, *index - 1);
        self.ends[1 - from].handle_opened(id).expect("good");
        id
    }

    fn carry(&mut self, from: usize, id: StreamId, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            let to = &mut self.ends[1 - from];
            to.handle_stream(NOW, id, Bytes::copy_from_slice(piece))
                .expect("good");
        }
    }

    /// Carries all there is until both are silent.
    fn run(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..2 {
                while let Some(output) = self.ends[from].poll_output() {
                    moved = true;
                    match output {
                        Output::Open(dir) => {
                            let id = self.open(from, dir);
                            self.ends[from].handle_opened(id).expect("good");
                        }
                        Output::Send { id, bytes, fin } => {
                            self.carry(from, id, &bytes);
                            if fin {
                                self.ends[1 - from].handle_fin(NOW, id).expect("good");
                            }
                        }
                        Output::Reset { id, code } => {
                            self.ends[1 - from].handle_reset(NOW, id, code).expect("good");
                        }
                        Output::Stop { id, code } => {
                            self.ends[1 - from].handle_stopped(id, code).expect("good");
                        }
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn events(&mut self, end: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.ends[end].poll_event()).collect()
    }
}

const PIECES: [usize; 6] = [1, 2, 3, 7, 64, usize::MAX];

#[test]
fn a_session_stands_and_ends_however_its_bytes_come() {
    for piece in PIECES {
        let mut pair = Pair::new(client(), server(), piece);
        pair.run();
        for end in 0..2 {
            assert_eq!(pair.events(end), [Event::Established { datagrams: true }]);
            assert!(pair.ends[end].is_open());
        }
        for (from, dir) in [(0, Dir::Bi), (0, Dir::Uni), (1, Dir::Bi), (1, Dir::Uni)] {
            let mut bytes = Vec::new();
            assert!(pair.ends[from].put_stream_header(dir, &mut bytes));
            let header = bytes.len();
            bytes.extend_from_slice(b"lane");
            let id = pair.open(from, dir);
            pair.carry(from, id, &bytes[..header + 1]);
            assert!(!pair.ends[1 - from].reads(id));
            let [Event::Stream { id: handed, early }] = &pair.events(1 - from)[..] else {
                panic!("handed over");
            };
            assert_eq!(*handed, id);
            assert!(b"l".starts_with(early));
        }
        let mut datagram = Vec::new();
        assert!(pair.ends[0].put_datagram_header(&mut datagram));
        datagram.extend_from_slice(b"payload");
        let payload = pair.ends[1].handle_datagram(datagram.into()).expect("good");
        assert_eq!(payload.as_deref(), Some(&b"payload"[..]));
        pair.ends[1].close(0xffff_fffe, "so much for that");
        pair.run();
        let ended = Event::Ended(Close {
            code: 0xffff_fffe,
            reason: "so much for that".to_owned(),
        });
        assert_eq!(pair.events(0), [ended]);
        assert!(!pair.ends[0].is_open() && !pair.ends[1].is_open());
        assert!(!pair.ends[0].put_stream_header(Dir::Bi, &mut Vec::new()));
    }
}

#[test]
fn a_reason_that_is_too_long_is_cut_between_letters() {
    let mut pair = Pair::new(client(), server(), 100);
    pair.run();
    pair.events(1);
    pair.ends[0].close(1, &"ä".repeat(1000));
    pair.run();
    let [Event::Ended(close)] = &pair.events(1)[..] else {
        panic!("ended")
    };
    assert_eq!(close.reason, "ä".repeat(512));
}

#[test]
fn streams_that_overtake_their_request_wait_for_it() {
    let mut peer = Hostile::client();
    peer.next_id(Dir::Bi); // the request, which is late
    let bi = peer.open(Dir::Bi, &[0x40, 0x41, 0, b'a', b'b']).expect("held");
    let uni = peer.open(Dir::Uni, &[0x40, 0x54, 0, b'c']).expect("held");
    let foreign = peer.open(Dir::Uni, &[0x40, 0x54, 8, b'd']).expect("held");
    for id in [bi, uni, foreign] {
        assert!(!peer.machine.reads(id));
    }
    assert!(peer.events().is_empty());
    peer.machine.handle_opened(request_id()).expect("good");
    peer.send(request_id(), &headers(&CONNECT)).expect("good");
    let handed = |id, early: &'static [u8]| Event::Stream {
        id,
        early: Bytes::from_static(early),
    };
    assert_eq!(
        peer.events(),
        [
            Event::Established { datagrams: true },
            handed(bi, b"ab"),
            handed(uni, b"c")
        ]
    );
    assert!(refused(
        &peer.outputs(),
        foreign,
        code::WEBTRANSPORT_BUFFERED_STREAM_REJECTED
    ));
}

#[test]
fn no_more_than_sixteen_streams_wait_for_a_request() {
    let mut peer = Hostile::client();
    peer.next_id(Dir::Bi);
    let ids: Vec<StreamId> = (0..20)
        .map(|_| peer.open(Dir::Uni, &[0x40, 0x54, 0, 1]).expect("good"))
        .collect();
    let outputs = peer.outputs();
    for (at, id) in ids.into_iter().enumerate() {
        assert_eq!(
            refused(&outputs, id, code::WEBTRANSPORT_BUFFERED_STREAM_REJECTED),
            at >= MAX_HELD
        );
    }
    // A held stream that is reset is forgotten.
    peer.machine
        .handle_reset(NOW, stream(Side::Client, Dir::Uni, 1), 5)
        .expect("good");
    assert_eq!(peer.machine.streams.len(), MAX_HELD);
}

#[test]
fn a_request_waits_for_the_clients_settings() {
    let mut peer = Hostile::against(server());
    peer.outputs();
    let id = peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    assert!(peer.outputs().is_empty() && peer.events().is_empty());
    // Another one does not wait as well.
    let second = peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    assert!(refused(&peer.outputs(), second, code::REQUEST_REJECTED));
    peer.open(Dir::Uni, &control(false)).expect("good");
    assert_eq!(peer.events(), [Event::Established { datagrams: true }]);
    assert_eq!(peer.status(), Some(200));
    assert!(peer.machine.reads(id));
}

#[test]
fn a_request_that_ends_before_the_settings_come_makes_no_session() {
    let mut peer = Hostile::against(server());
    let id = peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    peer.machine
        .handle_reset(NOW, id, code::REQUEST_REJECTED)
        .expect("good");
    peer.open(Dir::Uni, &control(false)).expect("good");
    assert!(peer.events().is_empty());
}

#[test]
fn datagrams_are_sent_only_to_who_takes_them() {
    let mut peer = Hostile::against(server());
    peer.open(Dir::Uni, &[vec![0], unit(frame::SETTINGS, &[])].concat())
        .expect("good");
    peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    assert_eq!(peer.events(), [Event::Established { datagrams: false }]);
    assert!(!peer.machine.put_datagram_header(&mut Vec::new()));
}

#[test]
fn a_session_ends_with_its_stream() {
    type Ending = fn(&mut WebTransport) -> Result<(), Http3Error>;
    let endings: [(Ending, u32); 3] = [
        (|machine| machine.handle_fin(NOW, request_id()), 0),
        (
            |machine| machine.handle_reset(NOW, request_id(), to_http3(77)),
            77,
        ),
        (|machine| machine.handle_stopped(request_id(), to_http3(78)), 78),
    ];
    for (ending, code) in endings {
        let mut peer = Hostile::client();
        peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
        peer.events();
        ending(&mut peer.machine).expect("good");
        let reason = String::new();
        assert_eq!(peer.events(), [Event::Ended(Close { code, reason })]);
        assert!(!peer.machine.is_open() && !peer.machine.reads(request_id()));
    }
}

#[test]
fn a_client_asks_only_a_server_that_offers_webtransport() {
    let mut peer = Hostile::against(client());
    let settings = unit(frame::SETTINGS, &[0x33, 1]);
    let error = peer
        .open(Dir::Uni, &[vec![0], settings].concat())
        .expect_err("refused");
    assert_eq!(error.code, code::SETTINGS_ERROR);
    assert!(peer.outputs().is_empty());
}

#[test]
fn a_client_learns_that_it_is_refused() {
    for (bytes, status) in [
        (headers(&[(":status", "404")]), 404),
        (
            [
                headers(&[(":status", "103")]),
                headers(&[(":status", "429"), ("a", "b")]),
            ]
            .concat(),
            429,
        ),
    ] {
        let mut peer = Hostile::server();
        peer.send(request_id(), &bytes).expect("good");
        let reason = crate::carrier::http::reason(status).to_owned();
        assert_eq!(
            peer.events(),
            [Event::Refused(HttpError::Status { status, reason })]
        );
        assert!(!peer.machine.reads(request_id()));
    }
    // A refusal that is complete is not lost by being asked to stop.
    let mut peer = Hostile::server();
    let stopped = peer.machine.handle_stopped(request_id(), code::NO_ERROR);
    stopped.expect("good");
    peer.send(request_id(), &headers(&[(":status", "404")]))
        .expect("good");
    assert!(matches!(
        &peer.events()[..],
        [Event::Refused(HttpError::Status { status: 404, .. })]
    ));
    type Ending = fn(&mut Hostile) -> Result<(), Http3Error>;
    let endings: [Ending; 4] = [
        |peer| peer.machine.handle_fin(NOW, request_id()),
        |peer| {
            peer.machine
                .handle_reset(NOW, request_id(), code::REQUEST_REJECTED)
        },
        |peer| peer.machine.handle_stopped(request_id(), code::REQUEST_REJECTED),
        |peer| peer.send(stream(Side::Server, Dir::Uni, 0), &unit(frame::GOAWAY, &[0])),
    ];
    for ending in endings {
        let mut peer = Hostile::server();
        ending(&mut peer).expect("good");
        assert_eq!(peer.events(), [Event::Refused(HttpError::Unanswered)]);
    }
}
