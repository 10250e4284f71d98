//! What requests of a peer may make this end hold, without any runtime: two machines, and bytes by hand.

use bytes::BytesMut;
use sheetbend_core::handshake::Security;
use sheetbend_core::server::{Acceptor, Routed, registry};
use sheetbend_core::session::{Config, Incoming, PathInfo, PathKey, Session};
use sheetbend_core::wire::OutBuffer;

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    max_request: 100_000,
    max_unaccepted: 250_000,
};

/// A client's session and a server's state, with one path between them.
struct Ends {
    now: Timestamp,
    client: Session,
    server: State,
    paths: (PathKey, PathKey),
}

fn path() -> PathInfo {
    PathInfo::new("mem://test", "mem", Security::Local)
}

fn output(session: &mut Session, now: Timestamp, key: PathKey) -> BytesMut {
    let mut all = BytesMut::new();
    loop {
        let mut out = OutBuffer::new();
        session.poll_transmit(now, key, &mut out);
        if out.is_empty() {
            return all;
        }
        while !out.is_empty() {
            let len = out.chunk().len();
            all.extend_from_slice(out.chunk());
            out.advance(len);
        }
    }
}

impl Ends {
    fn new() -> Ends {
        let now = Timestamp::ZERO;
        let mut client = Session::client(Config::default(), [1; 32], now);
        let near = client.open_path(now, path()).expect("a path");
        let mut bytes = output(&mut client, now, near);
        let mut incoming = Incoming::new(now, path());
        assert_eq!(incoming.handle_input(&mut bytes), Ok(true));
        let mut acceptor = Acceptor::new(registry::Config::default(), Config::default(), [2; 32], now);
        let Routed::New { mut session, .. } = acceptor.route(now, &incoming) else {
            panic!("a new session");
        };
        let far = session.accept_path(now, incoming).expect("a path");
        let mut ends = Ends {
            now,
            client,
            server: State::new(session, now, LIMITS),
            paths: (near, far),
        };
        ends.settle();
        ends
    }

    /// Carries bytes until nothing more goes out, and does what the server's driver does for requests.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut there = output(&mut self.client, self.now, self.paths.0);
            let mut back = output(&mut self.server.core, self.now, self.paths.1);
            if there.is_empty() && back.is_empty() {
                return;
            }
            let taken = self
                .server
                .core
                .handle_input(self.now, self.paths.1, &mut there, 0);
            taken.expect("sound");
            let taken = self.client.handle_input(self.now, self.paths.0, &mut back, 0);
            taken.expect("sound");
            while self.client.poll_event().is_some() {}
            self.drive();
        }
        panic!("no end of it");
    }

    fn drive(&mut self) {
        let mut wakes = WakeList::new();
        self.server.resume_requests(self.now, &mut wakes);
        self.server.take_events(&mut wakes, |_, _| {});
    }

    /// A request of which only the first bytes are written.
    fn begin(&mut self) -> StreamKey {
        let key = self.client.open(Kind::Bi, Class::REQUESTS).expect("credit");
        self.client.write(key, b"\x01\x04\x04call").expect("open");
        key
    }
}

#[test]
fn whole_requests_that_nobody_accepts_are_bounded_in_bytes() {
    let mut ends = Ends::new();
    let calls: Vec<StreamKey> = (0..20).map(|_| ends.begin()).collect();
    ends.settle();
    // Somebody asks once, and so all of them are read on as they come.
    assert!(ends.server.next_request(ends.now).is_none());
    let mut left: Vec<(StreamKey, Bytes)> = calls
        .iter()
        .map(|key| (*key, Bytes::from(vec![7; 90_000])))
        .collect();
    let mut received = 0;
    let mut most = 0;
    for turn in 0..1000 {
        for (key, rest) in &mut left {
            if !rest.is_empty() {
                ends.client.write_bytes(*key, rest).expect("open");
                if rest.is_empty() {
                    ends.client.finish(*key).expect("open");
                }
            }
        }
        ends.settle();
        most = most.max(ends.server.intake.unaccepted);
        // Nobody accepts for a while, and then each of them is there.
        if turn >= 20
            && let Some(arrived) = ends.server.next_request(ends.now)
        {
            assert_eq!(arrived.payload.len(), 90_000);
            received += 1;
            ends.drive();
        }
        if received == calls.len() {
            break;
        }
    }
    assert_eq!(received, calls.len());
    assert!(most >= LIMITS.max_unaccepted, "{most}: the bound was reached");
    assert!(most < LIMITS.max_unaccepted + LIMITS.max_request, "{most}");
    let intake = &ends.server.intake;
    assert_eq!((intake.unaccepted, intake.unfinished), (0, 0));
}

/// One that ends amid its bytes makes room for those that wait.
#[test]
fn a_request_given_up_makes_room() {
    let mut ends = Ends::new();
    let (broken, whole) = (ends.begin(), ends.begin());
    ends.settle();
    assert!(ends.server.next_request(ends.now).is_none());
    ends.server.intake.unfinished += MAX_UNFINISHED + 1;
    ends.client.write(broken, &[1; 10]).expect("open");
    ends.settle();
    ends.client.write(whole, &[2; 10]).expect("open");
    ends.client.finish(whole).expect("open");
    ends.settle();
    assert!(ends.server.next_request(ends.now).is_none());
    ends.client.reset(broken, 1).expect("open");
    ends.settle();
    assert_eq!(
        ends.server.next_request(ends.now).expect("whole").payload,
        [2; 10][..]
    );
}
