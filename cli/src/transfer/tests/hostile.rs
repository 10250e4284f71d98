//! Peers that lie, hang or want too much.

use super::*;

#[tokio::test]
async fn hostile_offers_are_refused_and_leave_nothing_behind() {
    let bench = bench(Limits::default());
    let good = offer("x", 10).encode();
    assert_eq!(bench.refusal(b"GET / HTTP/1.1\r\n\r\n").await, Reason::BadOffer);
    let mut flags = good.clone();
    flags[6] = 0x80;
    assert_eq!(bench.refusal(&flags).await, Reason::BadOffer);
    let mut long = good.clone();
    long[4] = 0xff;
    assert_eq!(bench.refusal(&long).await, Reason::BadOffer);
    for name in [
        "..",
        ".x",
        "/etc/passwd",
        "../../x",
        "a/b",
        "a\0b",
        "a\x1b[2Jb",
        "",
    ] {
        let mut bytes = good[..31].to_vec();
        bytes[5] = (25 + name.len()) as u8;
        bytes.extend_from_slice(name.as_bytes());
        assert_eq!(bench.refusal(&bytes).await, Reason::BadName, "{name:?}");
    }
    for end in 0..good.len() {
        let (answer, error) = bench.hostile(&good[..end]).await;
        assert!(
            answer.is_empty() && matches!(error, ReceiveError::Broken { held: 0, .. }),
            "{end}: {error}"
        );
    }
    assert_eq!(
        bench.refusal(&offer("x", u64::MAX).encode()).await,
        Reason::TooLarge
    );
    assert_eq!(bench.names(), [""; 0]);
}

#[tokio::test]
async fn a_wrong_hash_stores_nothing() {
    let bench = bench(Limits::default());
    let bytes = [&offer("x", 4).encode()[..], b"data", &[9; 32]].concat();
    let (answer, error) = bench.hostile(&bytes).await;
    let ReceiveError::Mismatch(sha) = error else {
        panic!("{error}")
    };
    let mut answer = &answer[..];
    assert_eq!(Reply::read(&mut answer).await.expect("a reply"), Reply::Have(0));
    assert_eq!(
        Reply::read(&mut answer).await.expect("a reply"),
        Reply::Mismatch(sha)
    );
    assert_eq!(bench.names(), [""; 0]);
}

#[tokio::test]
async fn links_folders_and_pipes_in_the_store_are_not_touched() {
    let outside = TempDir::new().expect("a folder");
    let victim = outside.path().join("victim");
    std::fs::write(&victim, b"precious").expect("write");
    let partial = format!(".x.{}.part", TransferId([7; 16]));
    for place in ["x", partial.as_str()] {
        for kind in 0..4 {
            let bench = bench(Limits::default());
            let at = bench.stored(place);
            match kind {
                0 => std::os::unix::fs::symlink(&victim, &at).expect("link"),
                1 => std::fs::create_dir(&at).expect("folder"),
                2 => {
                    let mode = rustix::fs::Mode::from_raw_mode(0o600);
                    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, mode, 0)
                        .expect("pipe");
                }
                // A second name of the victim under a name that is only read and then replaced is harmless.
                _ if place == "x" => continue,
                _ => std::fs::hard_link(&victim, &at).expect("link"),
            }
            let reason = bench.refusal(&offer("x", 8).encode()).await;
            assert_eq!(reason, Reason::NameTaken, "{place} {kind}");
        }
    }
    assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
}

#[tokio::test]
async fn the_store_has_limits() {
    let limits = Limits {
        max_file_bytes: 1000,
        max_store_bytes: 1500,
        max_partials: 1,
        ..Limits::default()
    };
    let bench = bench(limits);
    assert_eq!(
        bench.refusal(&offer("large", 1001).encode()).await,
        Reason::TooLarge
    );
    let mut first = Outgoing::open(&bench.source("first", &data(1000, 1)))
        .await
        .expect("opens");
    bench.transfer(&mut first).await.expect("sent");
    assert_eq!(
        bench.refusal(&offer("second", 501).encode()).await,
        Reason::StoreFull
    );
    // Half of it comes and stays; there is room for its other half, and for no other transfer.
    let (_, error) = bench
        .hostile(&[&offer("third", 500).encode()[..], &[0; 250]].concat())
        .await;
    assert!(matches!(error, ReceiveError::Broken { held: 250, .. }), "{error}");
    assert_eq!(
        bench.refusal(&offer("fourth", 1).encode()).await,
        Reason::StoreFull
    );
    let (answer, _) = bench.hostile(&offer("third", 500).encode()).await;
    assert_eq!(
        Reply::read(&mut &answer[..]).await.expect("a reply"),
        Reply::Have(250)
    );
}

#[tokio::test]
async fn old_partial_files_make_room() {
    let bench = bench(Limits {
        max_partials: 1,
        ..Limits::default()
    });
    let (_, error) = bench
        .hostile(&[&offer("old", 500).encode()[..], &[0; 250]].concat())
        .await;
    assert!(matches!(error, ReceiveError::Broken { held: 250, .. }), "{error}");
    let old = bench.stored(&bench.names()[0]);
    let file = std::fs::OpenOptions::new().write(true).open(old).expect("opens");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("touch");
    let mut fresh = Outgoing::open(&bench.source("new", b"new")).await.expect("opens");
    bench.transfer(&mut fresh).await.expect("sent");
    assert_eq!(bench.names(), ["new"]);
}

async fn begin(
    store: &Store,
    offer: &Offer,
) -> (
    DuplexStream,
    tokio::task::JoinHandle<Result<Received, ReceiveError>>,
) {
    let (mut client, server) = duplex(64 * 1024);
    let store = store.clone();
    let task = tokio::spawn(async move {
        let (mut reader, mut writer) = split(server);
        receive(&store, &mut reader, &mut writer, |_, _, _| {}).await
    });
    client.write_all(&offer.encode()).await.expect("room");
    (client, task)
}

#[tokio::test]
async fn transfers_at_once_are_limited() {
    let bench = bench(Limits {
        max_active: 2,
        ..Limits::default()
    });
    let mut open = Vec::new();
    for name in ["a", "b"] {
        let (mut client, task) = begin(&bench.store, &offer(name, 10)).await;
        assert_eq!(Reply::read(&mut client).await.expect("a reply"), Reply::Have(0));
        open.push((client, task));
    }
    assert_eq!(bench.refusal(&offer("c", 10).encode()).await, Reason::Busy);
    let (client, task) = open.remove(0);
    drop(client);
    task.await.expect("ends").expect_err("broken");
    let (_, error) = bench.hostile(&offer("c", 10).encode()).await;
    assert!(
        matches!(error, ReceiveError::Broken { .. }),
        "there is room again: {error}"
    );
}

#[tokio::test]
async fn a_transfer_that_comes_again_takes_over_from_a_stream_that_hangs() {
    let bench = bench(Limits::default());
    let content = data(100_000, 7);
    let mut outgoing = Outgoing::open(&bench.source("data", &content))
        .await
        .expect("opens");
    let hanging = Offer {
        id: outgoing.id(),
        ..offer("data", 100_000)
    };
    let (mut client, task) = begin(&bench.store, &hanging).await;
    assert_eq!(Reply::read(&mut client).await.expect("a reply"), Reply::Have(0));
    client.write_all(&content[..30_000]).await.expect("room");
    bench.transfer(&mut outgoing).await.expect("sent");
    let error = task.await.expect("ends").expect_err("superseded");
    let ReceiveError::Refused(
        Refusal {
            reason: Reason::Superseded,
            ..
        },
        None,
    ) = error
    else {
        panic!("{error}")
    };
    assert!(matches!(Reply::read(&mut client).await, Ok(Reply::Refused(_))));
    assert!(std::fs::read(bench.stored("data")).expect("there") == content);
    assert_eq!(bench.names(), ["data"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_given_up() {
    let bench = bench(Limits::default());
    let (mut client, task) = begin(&bench.store, &offer("data", 10)).await;
    assert_eq!(Reply::read(&mut client).await.expect("a reply"), Reply::Have(0));
    client.write_all(b"12345").await.expect("room");
    while !task.is_finished() {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    let error = task.await.expect("ends").expect_err("given up");
    let ReceiveError::Broken {
        held: 5,
        source: WireError::Stream(error),
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_server_that_lies_is_found_out() {
    let bench = bench(Limits::default());
    let path = bench.source("data", &data(1000, 8));
    let lies = [
        vec![Reply::Have(1001)],
        vec![Reply::Stored(Sha256([0; 32]))],
        vec![Reply::Have(0), Reply::Stored(Sha256([0; 32]))],
        vec![Reply::Have(0), Reply::Have(0)],
        vec![Reply::Have(1000), Reply::Stored(Sha256([1; 32]))],
    ];
    for replies in lies {
        let mut outgoing = Outgoing::open(&path).await.expect("opens");
        let (client, mut server) = duplex(64 * 1024);
        for reply in &replies {
            server.write_all(&reply.encode()).await.expect("room");
        }
        let (mut reader, mut writer) = split(client);
        let error = outgoing
            .send(&mut reader, &mut writer, |_| {})
            .await
            .expect_err("a lie");
        assert!(
            matches!(error, SendError::Broken { .. } | SendError::Mismatch { .. }),
            "{replies:?}: {error}"
        );
    }
}
