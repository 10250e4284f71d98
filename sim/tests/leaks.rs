//! What a simulated program must not use ends the run, and what it may use does not.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use sheetbend_sim::{Failure, FailureKind, Host, LinkConfig, World, detects_leaks, unsimulated};

/// Runs something on a host after a second.
fn run(program: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let mut world = World::new(1);
    world.network("lan", LinkConfig::default());
    let host = world.host("culprit", &["lan"]);
    let own = host.clone();
    world.block_on(&host, async move {
        own.sleep(Duration::from_secs(1)).await;
        program();
    })
}

/// That it fails the run, saying who did it, when, and with which call.
fn assert_leaks(call: &str, program: impl FnOnce() + Send + 'static) {
    if !detects_leaks() {
        return;
    }
    let failure = run(program).expect_err(call);
    assert_eq!(failure.kind, FailureKind::Leak, "{failure}");
    assert_eq!((failure.host.as_str(), failure.at), ("culprit", 1_000_000_000));
    assert!(failure.message.contains(call), "{failure}");
}

#[test]
fn the_monotonic_clock() {
    assert_leaks("the real clock was used: clock_gettime", || {
        std::hint::black_box(Instant::now());
    });
}

#[test]
fn the_time_of_day() {
    assert_leaks("the real clock was used: clock_gettime", || {
        std::hint::black_box(SystemTime::now());
    });
}

#[test]
fn a_hash_map_with_random_keys() {
    // Whether or not this thread has made one before.
    let before: HashMap<u8, u8> = HashMap::new();
    assert_leaks("RandomState", || {
        std::hint::black_box(HashMap::from([(1, 2)]));
    });
    assert_leaks("RandomState", || {
        std::hint::black_box(HashSet::from([1]));
    });
    drop(before);
}

#[test]
fn a_thread() {
    assert_leaks("a thread was used: pthread_create", || {
        let thread = std::thread::spawn(|| 1);
        assert_eq!(thread.join().expect("it ends"), 1);
    });
}

#[test]
fn a_sleep() {
    assert_leaks("a real sleep was used", || {
        std::thread::sleep(Duration::from_millis(1))
    });
}

#[test]
fn sockets() {
    assert_leaks("a real socket was used: socket", || {
        let _ = TcpStream::connect("127.0.0.1:9");
    });
    assert_leaks("a real socket was used: socket", || {
        let _ = TcpListener::bind("127.0.0.1:0");
    });
    assert_leaks("a real socket was used: socket", || {
        let _ = UdpSocket::bind("127.0.0.1:0");
    });
    assert_leaks("a real socket was used: socketpair", || {
        let _ = std::os::unix::net::UnixStream::pair();
    });
}

#[test]
fn names() {
    assert_leaks("the operating system's resolver was used: getaddrinfo", || {
        use std::net::ToSocketAddrs;
        let _ = "localhost:80".to_socket_addrs();
    });
}

#[test]
fn randomness() {
    assert_leaks("ambient randomness was used: getrandom", || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("there is randomness");
    });
}

#[test]
fn the_culprit_is_named() {
    #[inline(never)]
    fn innocent_looking_function() -> Instant {
        std::hint::black_box(Instant::now())
    }
    assert_leaks("innocent_looking_function", || {
        innocent_looking_function();
    });
}

/// Uses all that a program may use.
async fn decent(host: Host) -> u64 {
    let mut sums = BTreeMap::new();
    for round in 0..20_u64 {
        let mut rng = host.rng();
        *sums.entry(round % 3).or_insert(0) += rng.below(10);
        host.sleep(Duration::from_millis(round)).await;
        let text = format!("{:?} {:?}", host.now(), std::thread::current().id());
        std::hint::black_box(text);
    }
    sums.values().sum()
}

#[test]
fn a_decent_program_is_not_accused() {
    let mut world = World::new(3);
    let host = world.host("a", &["lan"]);
    // Outside of tasks the real world may be used, before, between and after.
    let began = Instant::now();
    let first = world
        .block_on(&host, decent(host.clone()))
        .expect("nobody is accused");
    let map: HashMap<u64, Instant> = HashMap::from([(first, Instant::now())]);
    world
        .block_on(&host, decent(host.clone()))
        .expect("nobody is accused");
    assert!(map.values().all(|at| *at >= began));
}

#[test]
fn what_is_meant_is_not_accused() {
    let done = run(|| {
        let elapsed = unsimulated(|| {
            let log: HashMap<&str, Instant> = HashMap::from([("now", Instant::now())]);
            log["now"].elapsed()
        });
        assert!(elapsed < Duration::from_secs(60));
    });
    done.expect("nobody is accused");
}

#[test]
fn a_panic_is_a_panic() {
    let failure = run(|| panic!("on purpose")).expect_err("it panics");
    assert_eq!(failure.kind, FailureKind::Panic, "{failure}");
}

#[test]
fn waiting_for_a_lock_is_not_accused() {
    use std::sync::atomic::{AtomicBool, Ordering};

    static LOCK: parking_lot::Mutex<u64> = parking_lot::Mutex::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    // As worlds on several threads do with what there is once in a process.
    let other = std::thread::spawn(|| {
        while !OVER.load(Ordering::Relaxed) {
            let mut lock = LOCK.lock();
            *lock += 1;
            std::thread::yield_now();
        }
    });
    let done = run(|| {
        for _ in 0..20 {
            *LOCK.lock() += 1;
        }
    });
    OVER.store(true, Ordering::Relaxed);
    other.join().expect("it ends");
    done.expect("nobody is accused");
}

#[test]
fn it_is_over_with_the_task() {
    if !detects_leaks() {
        return;
    }
    run(|| {
        let _ = Instant::now();
    })
    .expect_err("it is accused");
    // The next world of this thread begins anew.
    run(|| {}).expect("nobody is accused");
}
