//! Peers that break the rules of HTTP/3. RFC 9114, RFC 9204, RFC 9297.

use std::time::Duration;

use super::*;

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

/// Something that may be done now and then.
type Flood = fn(&mut Hostile) -> Result<(), Http3Error>;

#[test]
fn what_means_nothing_is_skipped_but_not_without_end() {
    let mut peer = Hostile::client();
    peer.open(Dir::Bi, &[unit(0x21, &[7; 5000]), headers(&CONNECT)].concat())
        .expect("good");
    peer.outputs();
    let id = peer.open(Dir::Uni, &[0x21, 1, 2, 3]).expect("good");
    assert!(refused(&peer.outputs(), id, code::STREAM_CREATION_ERROR));
    let floods: [Flood; 5] = [
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
