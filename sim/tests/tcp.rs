//! Simulated TCP: bytes arrive once and in order whatever the link does, and it costs what it costs in reality.

use std::io;
use std::time::Duration;

use sheetbend_sim::{Burst, Fault, Host, LinkConfig, TcpConfig, Timestamp, World};

const PORT: u16 = 80;

fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Reads to the end, checks every byte, and tells how many there were.
async fn drain(host: Host) -> u64 {
    let listener = host.listen_tcp(PORT).expect("free");
    let mut stream = listener.accept().await.expect("a caller");
    let (mut buf, mut at) = ([0; 4096], 0_u64);
    loop {
        let count = stream.read(&mut buf).await.expect("no reset");
        if count == 0 {
            return at;
        }
        for byte in &buf[..count] {
            assert_eq!(*byte, pattern(at), "at {at}");
            at += 1;
        }
    }
}

async fn fill(host: Host, bytes: u64) {
    let mut stream = host.connect_tcp("server", PORT).await.expect("an answer");
    let mut at = 0;
    while at < bytes {
        let chunk: Vec<u8> = (at..bytes.min(at + 10_000)).map(pattern).collect();
        stream.write_all(&chunk).await.expect("no reset");
        at += chunk.len() as u64;
    }
    stream.shutdown().expect("open");
    // Keeps the connection until the peer has read and closed too.
    let mut rest = [0; 1];
    assert_eq!(stream.read(&mut rest).await.expect("no reset"), 0);
}

/// Carries bytes over a link, and tells how long it took.
fn carry(seed: u64, config: LinkConfig, bytes: u64) -> Duration {
    let mut world = World::new(seed);
    world.network("net", config);
    let server = world.host("server", &["net"]);
    let client = world.host("client", &["net"]);
    let read = world.spawn(&server, drain(server.clone()));
    let wrote = world.spawn(&client, fill(client.clone(), bytes));
    let done = world.run_while_not(Duration::from_secs(3600), |_| wrote.is_done() && read.is_done());
    assert!(done.expect("no failure"), "seed {seed}: an hour was not enough");
    assert_eq!(read.take(), Some(bytes));
    world.now().since(Timestamp::ZERO)
}

#[test]
fn bytes_arrive_once_and_in_order_over_any_link() {
    for seed in 0..60 {
        let config = LinkConfig {
            delay: Duration::from_millis(1 + seed % 40),
            jitter: Duration::from_millis(seed % 7),
            rate: [0, 1_000_000, 50_000_000][seed as usize % 3],
            queue: [20_000, 0][seed as usize % 2],
            loss: Burst {
                enter: 0.02,
                leave: 0.3,
                loss_good: 0.01,
                loss_bad: 0.5,
            },
            reorder: 0.05,
            reorder_by: Duration::from_millis(5),
            duplicate: 0.03,
            corrupt: 0.01,
            truncate: 0.01,
            ..LinkConfig::default()
        };
        carry(seed, config, 150_000);
    }
}

#[test]
fn a_sound_link_is_filled_to_its_rate() {
    let rate = 20_000_000;
    let took = carry(
        1,
        LinkConfig::with_delay(Duration::from_millis(10)).rate(rate, 100_000),
        10_000_000,
    );
    let ideal = 10_000_000.0 * 8.0 / rate as f64;
    assert!(
        took.as_secs_f64() < ideal * 1.1,
        "{took:?} for {ideal:.2} s of bits"
    );
    assert!(took.as_secs_f64() > ideal);
}

#[test]
fn loss_costs_what_it_costs() {
    let link = LinkConfig::with_delay(Duration::from_millis(20));
    let sound = carry(1, link.clone(), 2_000_000);
    let lossy = carry(1, link.loss(0.02), 2_000_000);
    assert!(lossy > sound * 3, "{sound:?} without loss, {lossy:?} with");
    // Mathis et al. 1997: about mss / rtt * 1.2 / sqrt(loss); recovery by time does somewhat better.
    let mathis = 2_000_000.0 / (1460.0 / 0.040 * 1.22 / 0.02_f64.sqrt());
    let ratio = lossy.as_secs_f64() / mathis;
    assert!(
        (0.3..2.0).contains(&ratio),
        "{lossy:?}, {mathis:.1} s by the formula"
    );
}

/// Connects, and tells how long it took to fail, and with what.
fn failed_connect(prepare: impl FnOnce(&mut World)) -> (io::ErrorKind, Duration) {
    let mut world = World::new(5);
    world.network("net", LinkConfig::with_delay(Duration::from_millis(10)));
    let server = world.host("server", &["net"]);
    let client = world.host("client", &["net"]);
    world.tcp(
        &server,
        TcpConfig {
            backlog: 0,
            ..TcpConfig::default()
        },
    );
    prepare(&mut world);
    let host = client.clone();
    let outcome = world.block_on(&client, async move { host.connect_tcp("server", PORT).await });
    let error = outcome.expect("no failure").err().expect("nobody answers");
    (error.kind(), world.now().since(Timestamp::ZERO))
}

#[test]
fn connecting_fails_as_on_linux() {
    let (kind, after) = failed_connect(|_| {});
    assert_eq!(
        (kind, after),
        (io::ErrorKind::ConnectionRefused, Duration::from_millis(20))
    );
    let syns = Duration::from_secs(1 + 2 + 4 + 8 + 16 + 32 + 64);
    let crashed = failed_connect(|world| {
        world.apply(&Fault::Crash {
            host: "server".into(),
        })
    });
    assert_eq!(crashed, (io::ErrorKind::TimedOut, syns));
    let full = failed_connect(|world| {
        let server = world.handle(world.find("server").expect("made"));
        let host = server.clone();
        world.spawn(&server, async move {
            let _listener = host.listen_tcp(PORT).expect("free");
            std::future::pending::<()>().await;
        });
    });
    assert_eq!(
        full,
        (io::ErrorKind::TimedOut, syns),
        "a full backlog says nothing"
    );
}

#[test]
fn a_peer_that_lost_its_memory_resets() {
    let mut world = World::new(3);
    world.network("net", LinkConfig::default());
    world.boot("server", &["net"], |host| async move {
        let listener = host.listen_tcp(PORT).expect("free");
        let mut kept = Vec::new();
        while let Ok(stream) = listener.accept().await {
            kept.push(stream);
        }
    });
    let client = world.host("client", &["net"]);
    world.fault_at(
        Duration::from_secs(1),
        Fault::Crash {
            host: "server".into(),
        },
    );
    world.fault_at(
        Duration::from_secs(5),
        Fault::Restart {
            host: "server".into(),
        },
    );
    let host = client.clone();
    let outcome = world.block_on(&client, async move {
        let mut stream = host.connect_tcp("server", PORT).await.expect("an answer");
        host.sleep(Duration::from_secs(2)).await;
        // The server is down: what is written vanishes, and is tried again until it is back and knows nothing.
        stream.write_all(b"hello").await.expect("taken by the kernel");
        let error = stream.read(&mut [0; 8]).await.expect_err("no answer");
        (error.kind(), host.now())
    });
    let (kind, _) = outcome.expect("no failure");
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    let at = world.now().since(Timestamp::ZERO);
    assert!((5..9).contains(&at.as_secs()), "told by a retransmission: {at:?}");
}

#[test]
fn a_reader_who_does_not_read_closes_the_window() {
    let mut world = World::new(4);
    world.network("net", LinkConfig::default());
    let server = world.host("server", &["net"]);
    let client = world.host("client", &["net"]);
    let host = server.clone();
    let read = world.spawn(&server, async move {
        let listener = host.listen_tcp(PORT).expect("free");
        let mut stream = listener.accept().await.expect("a caller");
        host.sleep(Duration::from_secs(60)).await;
        let mut all = vec![0; 2_000_000];
        stream.read_exact(&mut all).await.expect("no reset");
        all.iter().all(|byte| *byte == 7)
    });
    let host = client.clone();
    let wrote = world.spawn(&client, async move {
        let mut stream = host.connect_tcp("server", PORT).await.expect("an answer");
        stream.write_all(&vec![7; 2_000_000]).await.expect("no reset");
        host.sleep(Duration::from_secs(300)).await;
    });
    world.run_for(Duration::from_secs(59)).expect("no failure");
    let stats = world.link_stats(&client, &server, "net").expect("linked");
    assert!(stats.bytes < 300_000, "one receive buffer and no more: {stats:?}");
    let probes = stats.sent;
    assert!(!wrote.is_done());
    world.run_for(Duration::from_secs(30)).expect("no failure");
    assert_eq!(read.take(), Some(true));
    let stats = world.link_stats(&client, &server, "net").expect("linked");
    assert!(stats.sent > probes);
}
