//! What requests of a peer may make this end hold, without any runtime: two machines, and bytes by hand.

use std::task::{Context, Poll, Waker};

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
    calls: Mutex<Calls>,
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
            calls: Mutex::default(),
            paths: (near, far),
        };
        ends.settle();
        ends
    }

    /// Carries bytes once there and back. Tells whether there were any.
    fn carry(&mut self) -> bool {
        let mut there = output(&mut self.client, self.now, self.paths.0);
        let mut back = output(&mut self.server.core, self.now, self.paths.1);
        if there.is_empty() && back.is_empty() {
            return false;
        }
        let taken = self
            .server
            .core
            .handle_input(self.now, self.paths.1, &mut there, 0);
        taken.expect("sound");
        let taken = self.client.handle_input(self.now, self.paths.0, &mut back, 0);
        taken.expect("sound");
        while self.client.poll_event().is_some() {}
        true
    }

    /// Carries bytes until nothing more goes out, and does what the server's driver does for requests.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.carry() {
                return;
            }
            self.drive();
        }
        panic!("no end of it");
    }

    fn drive(&mut self) {
        let mut wakes = WakeList::new();
        self.server.take_events(&mut wakes, |_, _| {});
        self.server.take_in(&self.calls);
        self.server.hand_over(&mut self.calls.lock(), &mut wakes);
    }

    /// Lets acknowledgements become due.
    fn wait(&mut self) {
        self.now += std::time::Duration::from_millis(100);
        self.client.handle_timeout(self.now);
        self.server.core.handle_timeout(self.now);
        self.settle();
    }

    /// A handle asks for a request. Tells whether that wakes the driver, too.
    fn accept(&mut self) -> (Option<Arrived>, bool) {
        let cx = Context::from_waker(Waker::noop());
        let mut calls = self.calls.lock();
        assert!(!calls.arm(&cx), "the driver sleeps");
        let mut ticket = None;
        let arrived = match calls.poll_ready(&cx, &mut ticket) {
            Poll::Ready(arrived) => arrived,
            Poll::Pending => None,
        };
        if let Some(ticket) = ticket {
            calls.leave(ticket);
        }
        (arrived, calls.take_driver().is_some())
    }

    /// Bytes of whole requests, wherever they lie.
    fn whole_bytes(&self) -> usize {
        let ready = self.calls.lock().ready_bytes();
        assert!(self.server.intake.laid >= ready);
        self.server.intake.unaccepted + ready
    }

    /// Sends all of a request but its end.
    fn write(&mut self, key: StreamKey, mut rest: Bytes) {
        for _ in 0..100 {
            self.client.write_bytes(key, &mut rest).expect("open");
            self.settle();
            if rest.is_empty() {
                return;
            }
        }
        panic!("no credit");
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

/// Those that lie ready for handles count as well, whether they came in pieces or in one.
#[test]
fn requests_laid_ready_for_handles_are_bounded_too() {
    let mut ends = Ends::new();
    assert!(matches!(ends.accept(), (None, true)));
    ends.drive();
    let calls: Vec<StreamKey> = (0..12).map(|_| ends.begin()).collect();
    ends.settle();
    let mut most = 0;
    for key in &calls {
        let mut rest = Bytes::from(vec![7; 90_000]);
        for _ in 0..100 {
            if !rest.is_empty() {
                ends.client.write_bytes(*key, &mut rest).expect("open");
                if rest.is_empty() {
                    ends.client.finish(*key).expect("open");
                }
            }
            ends.settle();
            most = most.max(ends.whole_bytes());
        }
    }
    for _ in 0..40 {
        let key = ends.client.open(Kind::Bi, Class::REQUESTS).expect("credit");
        ends.client.write(key, b"\x01\x04\x04call").expect("open");
        ends.client.write(key, &[7; 10_000]).expect("open");
        ends.client.finish(key).expect("open");
        ends.settle();
        most = most.max(ends.whole_bytes());
    }
    assert!(most >= LIMITS.max_unaccepted, "{most}: the bound was reached");
    assert!(most < LIMITS.max_unaccepted + LIMITS.max_request, "{most}");

    // Each one that is taken lets the driver read on, and all of them come.
    let mut received = (0, 0);
    while received.0 < calls.len() || received.1 < 40 {
        let full = ends.whole_bytes() >= LIMITS.max_unaccepted;
        let (arrived, woken) = ends.accept();
        match arrived.expect("whole").payload.len() {
            90_000 => received.0 += 1,
            10_000 => received.1 += 1,
            other => panic!("{other} bytes"),
        }
        assert!(woken || !full, "taking one makes room");
        ends.drive();
        ends.settle();
        assert!(ends.whole_bytes() < LIMITS.max_unaccepted + LIMITS.max_request);
    }
    assert_eq!(ends.whole_bytes(), 0);
    assert_eq!(ends.server.intake.unfinished, 0);
}

/// The bound is reached in one turn, and one that lay ready leaves before it ends: the driver looks again.
#[test]
fn a_request_taken_while_the_driver_works_is_not_missed() {
    let mut ends = Ends::new();
    ends.accept();
    ends.drive();
    for last in [false, false, true] {
        let key = ends.begin();
        ends.write(key, Bytes::from(vec![7; 90_000]));
        ends.client.finish(key).expect("open");
        if last {
            while ends.carry() {}
        } else {
            ends.settle();
        }
    }
    let mut wakes = WakeList::new();
    ends.server.take_events(&mut wakes, |_, _| {});
    ends.server.take_in(&ends.calls);
    assert!(ends.server.intake.is_full(LIMITS));
    let cx = Context::from_waker(Waker::noop());
    let taken = ends.calls.lock().poll_ready(&cx, &mut None);
    assert!(matches!(taken, Poll::Ready(Some(_))));
    assert!(ends.calls.lock().take_driver().is_none());
    ends.server.hand_over(&mut ends.calls.lock(), &mut wakes);
    assert!(ends.calls.lock().arm(&cx), "there is room now");
    ends.drive();
    assert!(!ends.calls.lock().arm(&cx));
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

/// What the driver hears of a stream that is gone does not touch the request that has its slot by then.
#[test]
fn an_event_of_a_stream_that_is_gone_leaves_its_slots_next_owner_alone() {
    let mut ends = Ends::new();
    let first = ends.begin();
    ends.settle();
    let stale = ends
        .server
        .core
        .accept(Kind::Bi, Class::REQUESTS)
        .expect("it came");
    ends.server.core.release(stale);
    ends.client.release(first);
    ends.settle();
    ends.wait();
    assert_eq!(ends.server.core.stream_id(stale), None, "it is gone");

    let second = ends.begin();
    ends.settle();
    assert!(ends.server.next_request(ends.now).is_none());
    assert!(matches!(ends.server.slots[stale.index()].work, Work::Request(_)));
    ends.server.pump_request(ends.now, stale);
    ends.server.pump_call(stale);
    ends.server.pump_writing(stale);
    ends.client.write(second, &[2; 10]).expect("open");
    ends.client.finish(second).expect("open");
    ends.settle();
    assert_eq!(
        ends.server.next_request(ends.now).expect("whole").payload,
        [2; 10][..]
    );
}
