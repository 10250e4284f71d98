//! Transfers over pipes in memory, into real folders.

use super::name::FileName;
use super::receive::{ReceiveError, Received, receive};
use super::send::{Outgoing, SendError, Sent};
use super::store::{Limits, Store};
use super::wire::{Offer, Reason, Refusal, Reply, WireError};
use super::{Sha256, TransferId};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};

mod hostile;

struct Bench {
    folder: TempDir,
    store: Store,
}

fn bench(limits: Limits) -> Bench {
    let folder = TempDir::new().expect("a folder");
    let store = Store::open(&folder.path().join("store"), limits).expect("a store");
    Bench { folder, store }
}

impl Bench {
    fn source(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, data).expect("write");
        path
    }

    fn stored(&self, name: &str) -> PathBuf {
        self.folder.path().join("store").join(name)
    }

    /// The names in the store, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.stored("")).expect("readable");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    async fn run(
        &self,
        outgoing: &mut Outgoing,
        up: u64,
        down: u64,
    ) -> (Result<Sent, SendError>, Result<Received, ReceiveError>) {
        let (client, near) = duplex(8 * 1024);
        let (far, server) = duplex(8 * 1024);
        let sending = async {
            let (mut reader, mut writer) = split(client);
            outgoing.send(&mut reader, &mut writer, |_| {}).await
        };
        let receiving = async {
            let (mut reader, mut writer) = split(server);
            receive(&self.store, &mut reader, &mut writer, |_, _, _| {}).await
        };
        let (sent, received, ()) = tokio::join!(sending, receiving, relay(near, far, up, down));
        (sent, received)
    }

    async fn transfer(&self, outgoing: &mut Outgoing) -> Result<Sent, SendError> {
        self.run(outgoing, u64::MAX, u64::MAX).await.0
    }

    /// What the store answers to these bytes, and how it sees the matter.
    async fn hostile(&self, bytes: &[u8]) -> (Vec<u8>, ReceiveError) {
        let (mut client, server) = duplex(64 * 1024);
        client.write_all(bytes).await.expect("room");
        client.shutdown().await.expect("shutdown");
        let (mut reader, mut writer) = split(server);
        let outcome = receive(&self.store, &mut reader, &mut writer, |_, _, _| {}).await;
        drop((reader, writer));
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("read");
        (answer, outcome.expect_err("hostile"))
    }

    async fn refusal(&self, bytes: &[u8]) -> Reason {
        let (answer, error) = self.hostile(bytes).await;
        let ReceiveError::Refused(refusal, _) = error else {
            panic!("{error}")
        };
        let told = Reply::read(&mut &answer[..]).await.expect("a reply");
        assert_eq!(told, Reply::Refused(refusal.clone()));
        refusal.reason
    }
}

/// Forwards so many bytes each way, then breaks.
async fn relay(near: DuplexStream, far: DuplexStream, up: u64, down: u64) {
    let (near_reader, mut near_writer) = split(near);
    let (far_reader, mut far_writer) = split(far);
    let there = async {
        if copy(&mut near_reader.take(up), &mut far_writer)
            .await
            .is_ok_and(|copied| copied < up)
        {
            let _ = far_writer.shutdown().await;
            std::future::pending::<()>().await;
        }
    };
    let back = async {
        let _ = copy(&mut far_reader.take(down), &mut near_writer).await;
        let _ = near_writer.shutdown().await;
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

/// A fixed sequence of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn data(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    crate::demo::pattern::fill(seed << 32, &mut data);
    data
}

fn offer(name: &str, size: u64) -> Offer {
    let name = FileName::parse(name.as_bytes()).expect("valid");
    Offer {
        name,
        size,
        id: TransferId([7; 16]),
        fresh: false,
    }
}

#[tokio::test]
async fn a_file_arrives_whole_under_its_name() {
    let bench = bench(Limits::default());
    for (index, bytes) in [0, 1, 4096, 262_144, 3_000_001].into_iter().enumerate() {
        let name = format!("file {index}");
        let content = data(bytes, index as u64);
        let mut outgoing = Outgoing::open(&bench.source(&name, &content))
            .await
            .expect("opens");
        let (sent, received) = bench.run(&mut outgoing, u64::MAX, u64::MAX).await;
        let (sent, received) = (sent.expect("sent"), received.expect("received"));
        assert_eq!((sent.resumed_at, sent.sha256), (0, received.sha256));
        assert_eq!(
            (received.name.as_str(), received.size, received.unchanged),
            (&*name, bytes as u64, false)
        );
        assert!(std::fs::read(bench.stored(&name)).expect("there") == content);
    }
    assert_eq!(bench.names().len(), 5, "no partial file is left");
}

#[tokio::test]
async fn the_hash_is_the_sha_256_of_the_file() {
    let bench = bench(Limits::default());
    let mut outgoing = Outgoing::open(&bench.source("abc", b"abc")).await.expect("opens");
    let sent = bench.transfer(&mut outgoing).await.expect("sent");
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sent.sha256.to_string(), known);
}

#[tokio::test]
async fn a_transfer_that_breaks_anywhere_goes_on_from_there() {
    let content = data(2_000_000, 1);
    let mut numbers = Numbers(0x5eed);
    for round in 0..30 {
        let bench = bench(Limits::default());
        let path = bench.source("data", &content);
        let mut outgoing = Outgoing::open(&path).await.expect("opens");
        let (mut broken, mut furthest) = (0, 0);
        let sent = loop {
            // Now and then the sender itself dies, and with it what it has hashed.
            if numbers.below(3) == 0 {
                outgoing = Outgoing::open(&path).await.expect("opens");
            }
            let (up, down) = (
                numbers.below(900_000),
                if numbers.below(4) == 0 {
                    numbers.below(80)
                } else {
                    1000
                },
            );
            match bench.run(&mut outgoing, up, down).await.0 {
                Ok(sent) => break sent,
                Err(error) => assert!(error.is_retryable(), "round {round}: {error}"),
            }
            let held = std::fs::metadata(bench.stored(&format!(".data.{}.part", outgoing.id())));
            let held = held.map_or(furthest, |metadata| metadata.len());
            assert!(held >= furthest, "nothing that was held is sent again");
            (broken, furthest) = (broken + 1, held);
            assert!(broken < 200, "no progress");
        };
        assert!(sent.resumed_at >= furthest || sent.resumed_at == content.len() as u64);
        assert!(std::fs::read(bench.stored("data")).expect("there") == content);
        assert_eq!(bench.names(), ["data"]);
    }
}

#[tokio::test]
async fn a_file_that_is_there_is_not_sent_again() {
    let bench = bench(Limits::default());
    let content = data(1_000_000, 2);
    let path = bench.source("data", &content);
    let mut outgoing = Outgoing::open(&path).await.expect("opens");
    bench.transfer(&mut outgoing).await.expect("sent");
    let mut again = Outgoing::open(&path).await.expect("opens");
    // An offer and a hash need no more.
    let (sent, received) = bench.run(&mut again, 200, 200).await;
    assert_eq!(sent.expect("sent").resumed_at, 1_000_000);
    assert!(received.expect("received").unchanged);
}

#[tokio::test]
async fn a_changed_file_of_the_same_size_takes_the_old_ones_place() {
    let bench = bench(Limits::default());
    for seed in [3, 4] {
        let content = data(500_000, seed);
        let mut outgoing = Outgoing::open(&bench.source("data", &content))
            .await
            .expect("opens");
        if let Err(error) = bench.transfer(&mut outgoing).await {
            assert!(
                matches!(error, SendError::Mismatch { again: true, .. }),
                "{error}"
            );
            assert_eq!(bench.transfer(&mut outgoing).await.expect("sent").resumed_at, 0);
        }
        assert!(std::fs::read(bench.stored("data")).expect("there") == content);
    }
    assert_eq!(bench.names(), ["data"]);
}

#[tokio::test]
async fn a_store_may_keep_what_it_has() {
    let bench = bench(Limits {
        replace: false,
        ..Limits::default()
    });
    for (bytes, seed) in [(1000, 1), (1000, 2), (2000, 3)] {
        let mut outgoing = Outgoing::open(&bench.source("data", &data(bytes, seed)))
            .await
            .expect("opens");
        let outcome = bench.transfer(&mut outgoing).await;
        match outcome {
            Ok(_) => assert_eq!(seed, 1),
            Err(SendError::Refused { refusal, .. }) => assert_eq!(refusal.reason, Reason::NameTaken),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(std::fs::read(bench.stored("data")).expect("there") == data(1000, 1));
    assert_eq!(bench.names(), ["data"]);
}

#[tokio::test]
async fn a_partial_file_that_rotted_is_found_out_and_sent_anew() {
    let bench = bench(Limits::default());
    let content = data(1_000_000, 5);
    let mut outgoing = Outgoing::open(&bench.source("data", &content))
        .await
        .expect("opens");
    bench
        .run(&mut outgoing, 600_000, 1000)
        .await
        .0
        .expect_err("broken");
    let partial = bench.stored(&format!(".data.{}.part", outgoing.id()));
    let mut rotten = std::fs::read(&partial).expect("there");
    rotten[100] ^= 1;
    std::fs::write(&partial, rotten).expect("write");
    let error = bench.transfer(&mut outgoing).await.expect_err("found out");
    assert!(
        matches!(error, SendError::Mismatch { again: true, .. }),
        "{error}"
    );
    assert_eq!(bench.names(), [""; 0], "nothing wrong is kept");
    bench.transfer(&mut outgoing).await.expect("sent");
    assert!(std::fs::read(bench.stored("data")).expect("there") == content);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_not_stored() {
    let bench = bench(Limits::default());
    for (keep, bytes) in [(false, 500_000), (true, 1_000_000)] {
        let path = bench.source("data", &data(1_000_000, 6));
        let mut outgoing = Outgoing::open(&path).await.expect("opens");
        bench
            .run(&mut outgoing, 300_000, 1000)
            .await
            .0
            .expect_err("broken");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("opens");
        file.set_len(bytes).expect("truncate");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(keep)))
            .expect("touch");
        let error = bench.transfer(&mut outgoing).await.expect_err("changed");
        assert!(matches!(error, SendError::Changed(_)), "{error}");
        assert!(!error.is_retryable() && !bench.stored("data").exists());
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_in_one_line() {
    let bench = bench(Limits::default());
    let hidden = bench.source(".secret", b"x");
    let error = Outgoing::open(&hidden).await.expect_err("hidden").to_string();
    assert!(
        error.ends_with("under its name: the name begins with a dot; rename it"),
        "{error}"
    );
    let error = Outgoing::open(bench.folder.path())
        .await
        .expect_err("a folder")
        .to_string();
    assert!(
        error.ends_with("is not a regular file; name the files to send one by one"),
        "{error}"
    );
    let error = Outgoing::open(&bench.stored("none"))
        .await
        .expect_err("missing")
        .to_string();
    assert!(
        error.starts_with("cannot read /") && error.contains("No such file"),
        "{error}"
    );
}

/// Begins a transfer by hand, up to the answer.
/// A server of one store behind a fault proxy, on real sockets.
async fn tcp_server(store: Store) -> (crate::proxy::Proxy, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let target = listener.local_addr().expect("bound").into();
    let task = tokio::spawn(async move {
        let mut transfers = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let store = store.clone();
            transfers.spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = receive(&store, &mut reader, &mut writer, |_, _, _| {}).await;
            });
        }
    });
    let listen: crate::address::ListenAddress = "127.0.0.1:0".parse().expect("an address");
    (
        crate::proxy::Proxy::start(&listen.0, &target)
            .await
            .expect("start"),
        task,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_gets_through_a_proxy_that_cuts_and_resets() {
    let bench = bench(Limits::default());
    let content = data(20_000_000, 9);
    let mut outgoing = Outgoing::open(&bench.source("data", &content))
        .await
        .expect("opens");
    let (proxy, server) = tcp_server(bench.store.clone()).await;
    let handle = proxy.handle();
    let breaker = tokio::spawn({
        let handle = handle.clone();
        async move {
            for fault in 1..=8 {
                handle
                    .wait_for(|counters| counters.to_target_bytes > fault * 2_000_000)
                    .await;
                if fault % 2 == 0 {
                    handle.cut()
                } else {
                    handle.reset()
                };
            }
        }
    });
    let (host, port) = handle.address().host_port().expect("TCP");
    let mut attempts = 0;
    loop {
        attempts += 1;
        let stream = tokio::net::TcpStream::connect((host, port))
            .await
            .expect("connect");
        let (mut reader, mut writer) = stream.into_split();
        match outgoing.send(&mut reader, &mut writer, |_| {}).await {
            Ok(sent) => break assert!(sent.resumed_at > 0),
            Err(error) => assert!(error.is_retryable() && attempts < 1000, "{error}"),
        }
    }
    breaker.abort();
    server.abort();
    assert!(std::fs::read(bench.stored("data")).expect("there") == content);
    assert_eq!(bench.names(), ["data"]);
}
