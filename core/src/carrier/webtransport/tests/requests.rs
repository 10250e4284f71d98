//! Requests that are no session: refused, malformed, or one too many.

use super::*;

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
