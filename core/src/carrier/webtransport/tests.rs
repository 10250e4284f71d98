//! Both ends against each other, and each against a peer that does what it must not.

use std::sync::Arc;
use std::time::Duration;

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

/// What a client must not put on a control stream behind its SETTINGS.
#[test]
fn http3_frames_in_the_wrong_place_on_a_control_stream() {
    for piece in PIECES {
        for (bytes, expected) in [
            (unit(frame::SETTINGS, &[]), code::FRAME_UNEXPECTED),
            (unit(frame::DATA, b"x"), code::FRAME_UNEXPECTED),
            (headers(&CONNECT), code::FRAME_UNEXPECTED),
            (unit(frame::PUSH_PROMISE, &[0]), code::FRAME_UNEXPECTED),
            (unit(frame::CANCEL_PUSH, &[0]), code::ID_ERROR),
            (unit(frame::GOAWAY, &[0, 0]), code::FRAME_ERROR),
            (unit(frame::GOAWAY, &[]), code::FRAME_ERROR),
            (unit(frame::GOAWAY, &[0; 9]), code::EXCESSIVE_LOAD),
            (
                [unit(frame::GOAWAY, &[4]), unit(frame::GOAWAY, &[8])].concat(),
                code::ID_ERROR,
            ),
            (
                [unit(frame::MAX_PUSH_ID, &[4]), unit(frame::MAX_PUSH_ID, &[3])].concat(),
                code::ID_ERROR,
            ),
            (vec![0x40, 0x41, 0], code::FRAME_ERROR),
        ] {
            let mut peer = Hostile::client();
            peer.piece = piece;
            let id = stream(Side::Client, Dir::Uni, 0);
            assert_eq!(code_of(peer.send(id, &bytes)), expected, "{bytes:?}");
            // An error stays.
            assert_eq!(code_of(peer.machine.handle_fin(NOW, request_id())), expected);
            assert!(peer.outputs().is_empty());
        }
    }
}

#[test]
fn reserved_types_of_http2_are_refused_everywhere() {
    for kind in [0x02, 0x06, 0x08, 0x09] {
        let mut peer = Hostile::client();
        let id = stream(Side::Client, Dir::Uni, 0);
        assert_eq!(code_of(peer.send(id, &unit(kind, b"x"))), code::FRAME_UNEXPECTED);
        let mut peer = Hostile::client();
        assert_eq!(
            code_of(peer.open(Dir::Bi, &unit(kind, b"x"))),
            code::FRAME_UNEXPECTED
        );
    }
}

#[test]
fn a_control_stream_that_does_not_begin_with_settings() {
    for bytes in [
        unit(frame::GOAWAY, &[0]),
        unit(0x21, b"grease"),
        unit(frame::DATA, &[]),
    ] {
        let mut peer = Hostile::against(server());
        let result = peer.open(Dir::Uni, &[vec![0], bytes].concat());
        assert_eq!(code_of(result), code::MISSING_SETTINGS);
    }
}

#[test]
fn http3_frames_in_the_wrong_place_on_a_request() {
    let connect = headers(&CONNECT);
    for piece in PIECES {
        for (bytes, expected) in [
            (unit(frame::DATA, b"x"), code::FRAME_UNEXPECTED),
            (unit(frame::SETTINGS, &[]), code::FRAME_UNEXPECTED),
            (unit(frame::GOAWAY, &[0]), code::FRAME_UNEXPECTED),
            (unit(frame::MAX_PUSH_ID, &[0]), code::FRAME_UNEXPECTED),
            (unit(frame::CANCEL_PUSH, &[0]), code::FRAME_UNEXPECTED),
            (unit(frame::PUSH_PROMISE, &[0]), code::FRAME_UNEXPECTED),
            (
                [connect.clone(), connect.clone()].concat(),
                code::FRAME_UNEXPECTED,
            ),
            ([connect.clone(), vec![0x40, 0x41, 0]].concat(), code::FRAME_ERROR),
            (
                [unit(0x21, b"grease"), vec![0x40, 0x41, 0]].concat(),
                code::FRAME_ERROR,
            ),
        ] {
            let mut peer = Hostile::client();
            peer.piece = piece;
            assert_eq!(code_of(peer.open(Dir::Bi, &bytes)), expected, "{bytes:?}");
        }
    }
}

#[test]
fn huge_settings_and_field_sections_are_refused_before_they_are_kept() {
    let mut head = vec![0];
    put_varint(&mut head, frame::SETTINGS);
    put_varint(&mut head, settings::MAX_SETTINGS + 1);
    let mut peer = Hostile::against(server());
    assert_eq!(code_of(peer.open(Dir::Uni, &head)), code::EXCESSIVE_LOAD);

    for len in [fields::MAX_SECTION + 1, (1 << 62) - 1] {
        let mut head = Vec::new();
        put_varint(&mut head, frame::HEADERS);
        put_varint(&mut head, len);
        let mut peer = Hostile::client();
        assert_eq!(code_of(peer.open(Dir::Bi, &head)), code::EXCESSIVE_LOAD);
    }
}

#[test]
fn field_sections_that_are_not_qpack_end_the_connection() {
    for section in [
        &[][..],
        &[1, 0],
        &[0, 0, 0x80],
        &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut peer = Hostile::client();
        let result = peer.open(Dir::Bi, &unit(frame::HEADERS, section));
        assert_eq!(code_of(result), code::QPACK_DECOMPRESSION_FAILED, "{section:?}");
    }
    let mut peer = Hostile::client();
    assert_eq!(
        code_of(peer.open(Dir::Uni, &[2, 0x3f, 0xe1, 0x1f])),
        code::QPACK_ENCODER_STREAM_ERROR
    );
    let mut peer = Hostile::client();
    assert_eq!(
        code_of(peer.open(Dir::Uni, &[3, 0x80])),
        code::QPACK_DECODER_STREAM_ERROR
    );
}

#[test]
fn requests_that_are_refused_say_why_and_leave_the_connection() {
    let with = |change: &[(&'static str, &'static str)]| {
        let mut list: Vec<_> = CONNECT.to_vec();
        for (name, value) in change {
            match list.iter_mut().find(|(known, _)| known == name) {
                Some(entry) => entry.1 = value,
                None => list.push((name, value)),
            }
        }
        headers(&list)
    };
    for (bytes, expected) in [
        (with(&[(":path", "/other")]), 404),
        (with(&[(":path", "/served/")]), 404),
        (with(&[(":path", "/served"), (":method", "GET")]), 405),
        (headers(&[(":method", "CONNECT"), (":authority", "host:25")]), 405),
        (with(&[(":path", "/served"), (":protocol", "websocket")]), 501),
        (with(&[(":path", "/served"), (":scheme", "http")]), 400),
        (
            with(&[(":path", "/served"), ("origin", "https://evil.example")]),
            403,
        ),
        (with(&[(":path", "/served"), (":authority", "evil.example")]), 421),
    ] {
        let mut peer = Hostile::against(server_at("/served", Guard::default().allow_host("good.example")));
        peer.open(Dir::Uni, &control(false)).expect("good");
        peer.outputs();
        let id = peer.open(Dir::Bi, &bytes).expect("the stream's trouble alone");
        assert!(matches!(
            &peer.events()[..],
            [Event::Refused(HttpError::Refused { .. })]
        ));
        assert!(!peer.machine.reads(id));
        assert_eq!(peer.status(), Some(expected), "{bytes:?}");
        // The next one is served.
        peer.open(
            Dir::Bi,
            &with(&[(":path", "/served?a=b"), ("origin", "https://localhost:4433")]),
        )
        .expect("good");
        assert_eq!(peer.events(), [Event::Established { datagrams: true }]);
        assert_eq!(peer.status(), Some(200));
    }
}

#[test]
fn malformed_requests_are_errors_of_their_streams() {
    let long: Vec<(&str, &str)> = CONNECT.to_vec();
    let plus = |extra: (&'static str, &'static str)| [long.clone(), vec![extra]].concat();
    for list in [
        vec![],
        vec![(":protocol", "webtransport")],
        long[..4].to_vec(),
        plus((":path", "/")),
        plus((":status", "200")),
        plus((":unknown", "x")),
        [vec![("a", "b")], long.clone()].concat(),
        plus(("Upper", "x")),
        plus(("", "x")),
        plus(("with space", "x")),
        plus(("a", "x\r\ny: z")),
        plus(("a", " padded")),
        plus(("connection", "upgrade")),
        plus(("host", "other.example")),
        [long[..4].to_vec(), vec![(":path", "no-slash")]].concat(),
        [long[..3].to_vec(), vec![(":authority", ""), (":path", "/")]].concat(),
    ] {
        let mut peer = Hostile::client();
        peer.outputs();
        let id = peer
            .open(Dir::Bi, &headers(&list))
            .expect("the stream's trouble alone");
        assert!(refused(&peer.outputs(), id, code::MESSAGE_ERROR), "{list:?}");
        assert!(matches!(
            &peer.events()[..],
            [Event::Refused(HttpError::Malformed(_))]
        ));
    }
}

#[test]
fn a_repeated_origin_or_draft_is_no_way_round_the_guard() {
    let twice = [
        ("origin", "https://localhost:4433"),
        ("origin", "https://evil.example"),
    ];
    let mut peer = Hostile::client();
    peer.outputs();
    peer.open(Dir::Bi, &headers(&[CONNECT.to_vec(), twice.to_vec()].concat()))
        .expect("good");
    assert!(matches!(
        &peer.events()[..],
        [Event::Refused(HttpError::Malformed(_))]
    ));
    assert_eq!(peer.status(), Some(400));
}

#[test]
fn a_second_session_on_a_connection_is_refused() {
    let mut peer = Hostile::client();
    peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    peer.outputs();
    let id = peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    assert!(refused(&peer.outputs(), id, code::REQUEST_REJECTED));
    assert!(peer.machine.is_open());
}

#[test]
fn webtransport_streams_for_unknown_sessions_are_refused() {
    let mut peer = Hostile::client();
    peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    peer.outputs();
    peer.events();
    for (dir, kind) in [(Dir::Bi, 0x41), (Dir::Uni, 0x54)] {
        let id = peer
            .open(dir, &[0x40, kind, 4, b'x'])
            .expect("the stream's trouble alone");
        assert!(refused(
            &peer.outputs(),
            id,
            code::WEBTRANSPORT_BUFFERED_STREAM_REJECTED
        ));
        assert!(!peer.machine.reads(id));
    }
    assert!(peer.events().is_empty());
    // No session at all: of a server, in one direction.
    for session in [1, 2, 3] {
        for (dir, kind) in [(Dir::Bi, 0x41), (Dir::Uni, 0x54)] {
            let mut peer = Hostile::client();
            assert_eq!(code_of(peer.open(dir, &[0x40, kind, session])), code::ID_ERROR);
        }
    }
    // And of one that is over.
    peer.send(request_id(), &unit(frame::DATA, &capsule::close(0, "")))
        .expect("good");
    peer.outputs();
    let id = peer.open(Dir::Uni, &[0x40, 0x54, 0]).expect("good");
    assert!(refused(&peer.outputs(), id, code::WEBTRANSPORT_SESSION_GONE));
}

#[test]
fn critical_streams_may_neither_end_nor_come_twice() {
    for kind in [0, 2, 3] {
        let begin = |peer: &mut Hostile| match kind {
            0 => stream(Side::Client, Dir::Uni, 0),
            kind => peer.open(Dir::Uni, &[kind]).expect("good"),
        };
        let mut peer = Hostile::client();
        let id = begin(&mut peer);
        assert_eq!(
            code_of(peer.machine.handle_fin(NOW, id)),
            code::CLOSED_CRITICAL_STREAM
        );
        let mut peer = Hostile::client();
        let id = begin(&mut peer);
        assert_eq!(
            code_of(peer.machine.handle_reset(NOW, id, 0)),
            code::CLOSED_CRITICAL_STREAM
        );
        let mut peer = Hostile::client();
        begin(&mut peer);
        assert_eq!(code_of(peer.open(Dir::Uni, &[kind])), code::STREAM_CREATION_ERROR);
    }
    let mut peer = Hostile::client();
    let ours = stream(Side::Server, Dir::Uni, 0);
    peer.machine.handle_opened(ours).expect("good");
    assert_eq!(
        code_of(peer.machine.handle_stopped(ours, 0)),
        code::CLOSED_CRITICAL_STREAM
    );
}

#[test]
fn a_stream_may_end_before_its_type_has_come() {
    let mut peer = Hostile::client();
    let id = peer.open(Dir::Uni, &[0x40]).expect("good");
    peer.machine.handle_fin(NOW, id).expect("good");
    let id = peer.open(Dir::Bi, &[0x40]).expect("good");
    peer.outputs();
    peer.machine.handle_reset(NOW, id, 0).expect("good");
    assert!(refused(&peer.outputs(), id, code::REQUEST_INCOMPLETE));
    let id = peer.open(Dir::Bi, &headers(&CONNECT)[..10]).expect("good");
    assert_eq!(code_of(peer.machine.handle_fin(NOW, id)), code::FRAME_ERROR);
}

#[test]
fn pushes_are_refused_on_both_sides() {
    assert_eq!(
        code_of(Hostile::client().open(Dir::Uni, &[1, 0])),
        code::STREAM_CREATION_ERROR
    );
    assert_eq!(code_of(Hostile::server().open(Dir::Uni, &[1, 0])), code::ID_ERROR);
    let promise = unit(frame::PUSH_PROMISE, &[0, 0, 0]);
    assert_eq!(
        code_of(Hostile::server().send(request_id(), &promise)),
        code::ID_ERROR
    );
    let control = stream(Side::Server, Dir::Uni, 0);
    let allow = unit(frame::MAX_PUSH_ID, &[0]);
    assert_eq!(
        code_of(Hostile::server().send(control, &allow)),
        code::FRAME_UNEXPECTED
    );
}

#[test]
fn what_means_nothing_is_skipped_but_not_without_end() {
    let mut peer = Hostile::client();
    peer.open(Dir::Bi, &[unit(0x21, &[7; 5000]), headers(&CONNECT)].concat())
        .expect("good");
    peer.outputs();
    let id = peer.open(Dir::Uni, &[0x21, 1, 2, 3]).expect("good");
    assert!(refused(&peer.outputs(), id, code::STREAM_CREATION_ERROR));
    let floods: [fn(&mut Hostile) -> Result<(), Http3Error>; 5] = [
        |peer| peer.send(stream(Side::Client, Dir::Uni, 0), &unit(0x21, &[])),
        |peer| peer.send(request_id(), &unit(frame::DATA, &[])),
        |peer| peer.send(request_id(), &unit(frame::DATA, &unit(0x4d44, b"capsule"))),
        |peer| peer.open(Dir::Uni, &[0x21]).map(|_| ()),
        |peer| peer.open(Dir::Bi, &headers(&CONNECT)).map(|_| ()),
    ];
    for flood in floods {
        let mut peer = Hostile::client();
        peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
        let many = (0..2 * MAX_IDLE).map(|_| flood(&mut peer)).find(Result::is_err);
        assert_eq!(many.map(code_of), Some(code::EXCESSIVE_LOAD));
        assert!(peer.machine.streams.is_empty());
    }
    // As many in a minute are no flood.
    let mut peer = Hostile::client();
    let (mut now, grease) = (NOW, Bytes::from(unit(0x21, &[])));
    for _ in 0..6000 {
        now += Duration::from_millis(11);
        let control = stream(Side::Client, Dir::Uni, 0);
        peer.machine
            .handle_stream(now, control, grease.clone())
            .expect("honest");
    }
}

#[test]
fn datagrams_of_no_session_are_dropped_and_of_no_stream_are_errors() {
    let mut peer = Hostile::client();
    assert_eq!(
        peer.machine.handle_datagram(Bytes::from_static(&[0, 1])),
        Ok(None)
    );
    peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    assert_eq!(
        peer.machine.handle_datagram(Bytes::from_static(&[1, 1])),
        Ok(None)
    );
    let empty = peer.machine.handle_datagram(Bytes::from_static(&[0]));
    assert_eq!(empty, Ok(Some(Bytes::new())));
    for bytes in [&[][..], &[0x40], &[0xff; 8], &[0xd0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut peer = Hostile::client();
        let result = peer.machine.handle_datagram(Bytes::from_static(bytes));
        assert_eq!(code_of(result), code::DATAGRAM_ERROR);
    }
}

#[test]
fn capsules_that_close_wrongly() {
    let close = |value: &[u8]| unit(frame::DATA, &unit(0x2843, value));
    for value in [&[][..], &[0, 0, 0], &[0, 0, 0, 0, 0xff], &[b'a'; 5 + 1024]] {
        for piece in PIECES {
            let mut peer = Hostile::client();
            peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
            peer.piece = piece;
            assert_eq!(
                code_of(peer.send(request_id(), &close(value))),
                code::DATAGRAM_ERROR
            );
        }
    }
    // The stream ends within a capsule.
    let mut peer = Hostile::client();
    peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    peer.send(request_id(), &unit(frame::DATA, &[0x68, 0x43, 4, 0]))
        .expect("good");
    assert_eq!(
        code_of(peer.machine.handle_fin(NOW, request_id())),
        code::FRAME_ERROR
    );
    // One capsule over many frames is as good as in one.
    let mut peer = Hostile::client();
    peer.open(Dir::Bi, &headers(&CONNECT)).expect("good");
    peer.events();
    for byte in capsule::close(7, "bye") {
        peer.send(request_id(), &unit(frame::DATA, &[byte]))
            .expect("good");
    }
    let ended = Event::Ended(Close {
        code: 7,
        reason: "bye".to_owned(),
    });
    assert_eq!(peer.events(), [ended]);
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
        let reason = String::new();
        assert_eq!(
            peer.events(),
            [Event::Refused(HttpError::Status { status, reason })]
        );
        assert!(!peer.machine.reads(request_id()));
    }
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

#[test]
fn a_server_that_answers_wrongly() {
    for (bytes, expected) in [
        (headers(&[]), code::MESSAGE_ERROR),
        (headers(&[(":status", "2000")]), code::MESSAGE_ERROR),
        (headers(&[(":status", "+20")]), code::MESSAGE_ERROR),
        (
            headers(&[(":status", "200"), (":path", "/")]),
            code::MESSAGE_ERROR,
        ),
        (unit(frame::DATA, b"x"), code::FRAME_UNEXPECTED),
        (headers(&[(":status", "100")]).repeat(9), code::EXCESSIVE_LOAD),
        (headers(&[(":status", "200")]).repeat(2), code::FRAME_UNEXPECTED),
    ] {
        let mut peer = Hostile::server();
        assert_eq!(code_of(peer.send(request_id(), &bytes)), expected);
    }
    // RFC 9114 §6.1: no requests by a server.
    let mut peer = Hostile::server();
    assert_eq!(
        code_of(peer.open(Dir::Bi, &headers(&CONNECT))),
        code::STREAM_CREATION_ERROR
    );
    let mut peer = Hostile::server();
    let control = stream(Side::Server, Dir::Uni, 0);
    assert_eq!(
        code_of(peer.send(control, &unit(frame::GOAWAY, &[1]))),
        code::ID_ERROR
    );
}

#[test]
fn bytes_of_streams_that_are_not_the_machines_are_ignored() {
    let mut peer = Hostile::client();
    let unknown = stream(Side::Client, Dir::Bi, 99);
    peer.machine
        .handle_stream(NOW, unknown, Bytes::from_static(&[2, 2]))
        .expect("ignored");
    peer.machine.handle_fin(NOW, unknown).expect("ignored");
    peer.machine.handle_stopped(unknown, 0).expect("ignored");
    assert!(peer.machine.streams.len() == 1 && peer.events().is_empty());
}
