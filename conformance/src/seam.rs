//! What the traits of the seam promise, which the driver builds upon.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sheetbend_runtime::{Address, Listener};

use crate::env::{Env, Wire, pattern, yield_now};

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Waits by the runtime's own timer.
async fn rest(env: &Env, duration: Duration) {
    let runtime = env.runtime();
    let mut timer = runtime.timer(runtime.now() + duration);
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

pub async fn a_timer_expires_after_its_deadline_and_stays_expired(env: Env) {
    let runtime = env.runtime();
    for wait in [0, 1, 20] {
        let deadline = runtime.now() + Duration::from_millis(wait);
        let mut timer = runtime.timer(deadline);
        poll_fn(|cx| timer.poll_expired(cx)).await;
        // tokio's timers are good to a millisecond, its clock to a nanosecond.
        assert!(runtime.now() + Duration::from_millis(1) >= deadline, "not early");
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
    // One that is past already.
    let mut past = runtime.timer(sheetbend_runtime::Timestamp::ZERO);
    poll_fn(|cx| past.poll_expired(cx)).await;
    // One that is as far away as can be said.
    let mut never = runtime.timer(sheetbend_runtime::Timestamp::from_nanos(u64::MAX));
    let waker = Waker::from(Arc::<Count>::default());
    assert!(never.poll_expired(&mut Context::from_waker(&waker)).is_pending());
}

pub async fn a_timer_that_is_set_again_expires_once_more(env: Env) {
    let runtime = env.runtime();
    let hour = Duration::from_secs(3600);
    let mut timer = runtime.timer(runtime.now() + hour);
    let pending = poll_fn(|cx| Poll::Ready(timer.poll_expired(cx).is_pending())).await;
    assert!(pending);
    for _ in 0..3 {
        timer.reset(runtime.now() + Duration::from_millis(2));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
    timer.reset(runtime.now() + hour);
    assert!(poll_fn(|cx| Poll::Ready(timer.poll_expired(cx).is_pending())).await);
}

/// A connected pair over this kind of socket.
async fn sockets(env: &Env, kind: &str) -> (Box<dyn Listener>, Wire, Wire) {
    let address: Address = env.free_address(kind).parse().unwrap();
    let listener = env.runtime().listen(address).await.unwrap();
    let at = listener.local_address();
    let runtime = env.runtime();
    let accepting = poll_fn(|cx| listener.poll_accept(cx));
    let (near, far) = futures::join!(runtime.connect(at), accepting);
    (listener, Wire(near.unwrap()), Wire(far.unwrap()))
}

/// The driver waits; somebody else tries without success: the driver is woken all the same when there is something.
pub async fn tries_do_not_take_a_waiter_its_turn(env: Env) {
    for kind in ["tcp", "unix", "mem"] {
        let (_listener, near, far) = sockets(&env, kind).await;
        let near = Arc::new(near);
        for word in [&b"one"[..], b"two", b"three"] {
            let own = near.clone();
            let waiting = env.spawn(async move {
                let mut heard = BytesMut::new();
                assert!(own.hear(&mut heard).await.unwrap());
                heard
            });
            for _ in 0..3 {
                yield_now().await;
                let nothing = near.0.try_read(&mut BytesMut::with_capacity(64));
                assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock, "{kind}");
            }
            far.say(word).await.unwrap();
            assert_eq!(waiting.await.unwrap(), word, "{kind}");
        }
    }
}

async fn a_socket_ends(env: Env, kind: &str) {
    const LONG: usize = 3_000_000;
    let (listener, near, far) = sockets(&env, kind).await;
    assert!(!near.0.peer().is_empty() && !far.0.peer().is_empty());
    // Nobody reads: at some point there is no room.
    let mut sent = 0;
    let mut block = vec![0; 60_000];
    let full = loop {
        pattern(sent as u64, &mut block);
        match near
            .0
            .try_write_vectored(&[IoSlice::new(&block[..7]), IoSlice::new(&block[7..])])
        {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    let far = Arc::new(far);
    let reader = far.clone();
    let total = LONG + sent;
    let reading = env.spawn(async move {
        let mut heard = BytesMut::new();
        while reader.hear(&mut heard).await.unwrap() {}
        heard
    });
    let mut rest = vec![0; LONG];
    pattern(sent as u64, &mut rest);
    near.say(&rest).await.unwrap();
    near.0.shutdown().unwrap();
    let heard = reading.await.unwrap();
    let mut expected = vec![0; total];
    pattern(0, &mut expected);
    assert!(heard == expected, "all of it, and then the end");
    // One direction has ended, the other has not.
    far.say(b"back").await.unwrap();
    let mut back = BytesMut::new();
    assert!(near.hear(&mut back).await.unwrap());
    assert_eq!(back, "back");
    drop(far);
    assert!(matches!(near.hear(&mut back).await, Ok(false) | Err(_)));
    drop(listener);
}

pub async fn a_socket_ends_and_says_so_over_tcp(env: Env) {
    a_socket_ends(env, "tcp").await;
}

pub async fn a_socket_ends_and_says_so_over_a_unix_socket(env: Env) {
    a_socket_ends(env, "unix").await;
}

pub async fn a_socket_ends_and_says_so_in_memory(env: Env) {
    a_socket_ends(env, "mem").await;
}

pub async fn names_and_addresses_are_resolved(env: Env) {
    let runtime = env.runtime();
    let address = runtime.resolve("127.0.0.1".to_owned(), 80).await.unwrap();
    assert_eq!(address.len(), 1);
    assert_eq!(address[0].port(), 80);
    let name = runtime.resolve("localhost".to_owned(), 443).await.unwrap();
    assert!(!name.is_empty() && name.iter().all(|address| address.port() == 443));
    // RFC 6761 §6.4: it never stands for anything.
    assert!(runtime.resolve("nobody.invalid".to_owned(), 1).await.is_err());
    let listener = runtime
        .listen("tcp://localhost:0".parse().unwrap())
        .await
        .unwrap();
    let Address::Tcp { port, .. } = listener.local_address() else {
        panic!("of another kind")
    };
    assert_ne!(port, 0);
}

pub async fn names_are_taken_and_given_back(env: Env) {
    let runtime = env.runtime();
    for kind in ["tcp", "unix", "mem"] {
        let address: Address = env.free_address(kind).parse().unwrap();
        let listener = runtime.listen(address).await.unwrap();
        let at = listener.local_address();
        let twice = runtime.listen(at.clone()).await.err().unwrap();
        assert_eq!(twice.kind(), io::ErrorKind::AddrInUse, "{kind}");
        drop(listener);
        assert!(runtime.connect(at.clone()).await.is_err(), "{kind}");
        drop(runtime.listen(at).await.unwrap());
    }
    let of_no_runtime = runtime
        .connect("ws://127.0.0.1:1".parse().unwrap())
        .await
        .err()
        .unwrap();
    assert_eq!(of_no_runtime.kind(), io::ErrorKind::Unsupported);
}

pub async fn files_are_written_published_and_read_back(env: Env) {
    let files = env.runtime().files();
    let dir = env.dir().join("box");
    let (temp, last) = (dir.join("a.tmp"), dir.join("a"));
    files.create_dir(dir.join("deeper")).await.unwrap();
    files
        .create(temp.clone(), Bytes::from_static(b"one"))
        .await
        .unwrap();
    let again = files.create(temp.clone(), Bytes::new()).await.unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    files
        .append(temp.clone(), Bytes::from_static(b" two"))
        .await
        .unwrap();
    files.sync(temp.clone()).await.unwrap();
    files.rename_new(temp.clone(), last.clone()).await.unwrap();
    files.sync_dir(dir.clone()).await.unwrap();
    assert_eq!(files.list(dir.clone()).await.unwrap(), ["a", "deeper"]);
    assert_eq!(files.read(last.clone(), 4, 2).await.unwrap(), "tw");

    files
        .create(temp.clone(), Bytes::from_static(b"x"))
        .await
        .unwrap();
    let taken = files.rename_new(temp.clone(), last.clone()).await.unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    files.rename(temp.clone(), last.clone()).await.unwrap();
    assert_eq!(files.read(last.clone(), 0, 9).await.unwrap(), "x");
    files.remove(last.clone()).await.unwrap();
    let gone = files.read(last, 0, 9).await.unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

pub async fn seeds_differ(env: Env) {
    let runtime = env.runtime();
    let seeds = [runtime.seed(), runtime.seed(), runtime.seed()];
    assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
    assert!(runtime.unix_time() > Duration::from_secs(1_700_000_000));
}

pub async fn tasks_run_beside_each_other(env: Env) {
    let tasks: Vec<_> = (0..100u64)
        .map(|number| {
            let own = env.clone();
            env.spawn(async move {
                rest(&own, Duration::from_millis(number % 7)).await;
                own.spawn(async move { number }).await.unwrap()
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert_eq!(sum, 4950);
}
