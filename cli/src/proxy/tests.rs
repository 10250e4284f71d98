//! The proxy between real sockets. Nothing here waits for the wall clock: tests wait for bytes and counters,
//! and those about time run on tokio's paused clock, which jumps to the next timer when all is quiet.

use super::*;
use std::io::ErrorKind;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;

const LOOPBACK: &str = "tcp://127.0.0.1:0";

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

enum Target {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Bench {
    target: Target,
    proxy: Proxy,
    handle: ProxyHandle,
    folder: TempDir,
}

fn loopback() -> Address {
    LOOPBACK
        .parse::<crate::address::ListenAddress>()
        .expect("an address")
        .0
}

async fn tcp_bench() -> Bench {
    let target = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = target.local_addr().expect("bound").into();
    bench(Target::Tcp(target), loopback(), address).await
}

async fn unix_bench() -> Bench {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("target");
    let target = Target::Unix(UnixListener::bind(&path).expect("bind"));
    let listen = Address::Unix(folder.path().join("proxy"));
    Bench {
        folder,
        ..bench(target, listen, Address::Unix(path)).await
    }
}

async fn bench(target: Target, listen: Address, address: Address) -> Bench {
    let proxy = Proxy::start(&listen, &address).await.expect("start");
    let handle = proxy.handle();
    Bench {
        target,
        proxy,
        handle,
        folder: TempDir::new().expect("a folder"),
    }
}

impl Bench {
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self.handle.address() {
            Address::Tcp { host, port } => Box::new(TcpStream::connect((host.as_str(), *port)).await?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    async fn accept(&self) -> Box<dyn Stream> {
        match &self.target {
            Target::Tcp(listener) => Box::new(listener.accept().await.expect("accept").0),
            Target::Unix(listener) => Box::new(listener.accept().await.expect("accept").0),
        }
    }

    async fn pair(&self) -> (Box<dyn Stream>, Box<dyn Stream>) {
        (self.dial().await.expect("dial"), self.accept().await)
    }
}

async fn exchange(client: &mut dyn Stream, server: &mut dyn Stream) {
    let mut got = [0; 4];
    client.write_all(b"ping").await.expect("write");
    server.read_exact(&mut got).await.expect("read");
    assert_eq!(&got, b"ping");
    server.write_all(b"pong").await.expect("write");
    client.read_exact(&mut got).await.expect("read");
    assert_eq!(&got, b"pong");
}

/// Polls `future` until nothing moves any more, and says whether it is done.
async fn resolves<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    for _ in 0..200 {
        tokio::select! {
            biased;
            output = &mut *future => return Some(output),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

#[tokio::test]
async fn bytes_pass_both_ways_and_so_does_the_end() {
    for bench in [tcp_bench().await, unix_bench().await] {
        let (mut client, mut server) = bench.pair().await;
        exchange(&mut *client, &mut *server).await;
        client.shutdown().await.expect("shutdown");
        assert_eq!(server.read(&mut [0; 1]).await.expect("the end"), 0);
        server.write_all(b"still open").await.expect("half-closed only");
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("the end");
        assert_eq!(rest, b"still open");
        let counters = bench.handle.wait_for(|counters| counters.live == 0).await;
        assert_eq!(
            (counters.to_target_bytes, counters.to_client_bytes, counters.total),
            (4, 4 + rest.len() as u64, 1)
        );
    }
}

#[tokio::test]
async fn many_megabytes_arrive_in_order() {
    for bench in [tcp_bench().await, unix_bench().await] {
        let (mut client, mut server) = bench.pair().await;
        let sent: Vec<u8> = (0..8_000_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&copy).await.expect("write");
            client.shutdown().await.expect("shutdown");
            client
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.expect("read");
        assert!(got == sent);
        drop(writer.await.expect("the writer"));
    }
}

#[tokio::test]
async fn a_cut_ends_every_connection_in_order_even_with_bytes_unread() {
    for bench in [tcp_bench().await, unix_bench().await] {
        let (mut client, mut server) = bench.pair().await;
        let (mut other_client, mut other_server) = bench.pair().await;
        exchange(&mut *client, &mut *server).await;
        bench.handle.stall(true);
        // These bytes lie unread in the proxy's socket: closing it plainly would send a RST.
        client.write_all(&[7; 1000]).await.expect("write");
        bench.handle.wait_for(|counters| counters.live == 2).await;
        assert_eq!(bench.handle.cut(), 2);
        for stream in [&mut client, &mut server, &mut other_client, &mut other_server] {
            assert_eq!(stream.read(&mut [0; 1]).await.expect("a FIN, no RST"), 0);
        }
        bench.handle.wait_for(|counters| counters.live == 0).await;
        bench.handle.heal();
        let (mut client, mut server) = bench.pair().await;
        exchange(&mut *client, &mut *server).await;
    }
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let bench = tcp_bench().await;
    let (mut client, mut server) = bench.pair().await;
    exchange(&mut *client, &mut *server).await;
    assert_eq!(bench.handle.reset(), 1);
    for stream in [&mut client, &mut server] {
        let error = stream.read(&mut [0; 1]).await.expect_err("a RST");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let bench = unix_bench().await;
    let (mut client, mut server) = bench.pair().await;
    exchange(&mut *client, &mut *server).await;
    bench.handle.reset();
    for stream in [&mut client, &mut server] {
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_reset_by_one_end_reaches_the_other() {
    let bench = tcp_bench().await;
    let mut client = bench.dial().await.expect("dial");
    let Target::Tcp(target) = &bench.target else {
        unreachable!()
    };
    let (server, _) = target.accept().await.expect("accept");
    server.set_zero_linger().expect("linger");
    drop(server);
    let error = client.read(&mut [0; 1]).await.expect_err("a RST");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stall_is_silent_and_loses_nothing() {
    for bench in [tcp_bench().await, unix_bench().await] {
        let (mut client, mut server) = bench.pair().await;
        exchange(&mut *client, &mut *server).await;
        let before = bench.handle.counters();
        bench.handle.stall(true);
        client.write_all(b"held").await.expect("the kernel takes it");
        let mut buffer = [0; 4];
        let mut read = Box::pin(server.read_exact(&mut buffer));
        assert!(resolves(&mut read).await.is_none(), "nothing arrives");
        let mut newcomer = bench.dial().await.expect("accepted all the same");
        newcomer.write_all(b"hello").await.expect("the kernel takes it");
        {
            let mut accepted = Box::pin(bench.accept());
            assert!(
                resolves(&mut accepted).await.is_none(),
                "the target does not see it"
            );
        }
        assert_eq!(bench.handle.counters().to_target_bytes, before.to_target_bytes);
        bench.handle.stall(false);
        read.await.expect("read");
        assert_eq!(&buffer, b"held");
        let mut late = bench.accept().await;
        let mut hello = [0; 5];
        late.read_exact(&mut hello).await.expect("read");
        assert_eq!(&hello, b"hello");
    }
}

#[tokio::test]
async fn one_direction_stalls_alone_and_can_be_cut_meanwhile() {
    let bench = tcp_bench().await;
    let (mut client, mut server) = bench.pair().await;
    exchange(&mut *client, &mut *server).await;
    bench.handle.stall_direction(Direction::ToClient, true);
    client.write_all(b"ping").await.expect("write");
    server
        .read_exact(&mut [0; 4])
        .await
        .expect("this direction flows");
    server.write_all(b"pong").await.expect("write");
    {
        let mut byte = [0; 1];
        let mut read = Box::pin(client.read(&mut byte));
        assert!(resolves(&mut read).await.is_none(), "this direction does not");
    }
    bench.handle.cut();
    assert_eq!(
        client.read(&mut [0; 1]).await.expect("a FIN"),
        0,
        "what was held is lost"
    );
}

#[tokio::test]
async fn refusing_spares_what_stands() {
    let bench = tcp_bench().await;
    let (mut client, mut server) = bench.pair().await;
    bench.handle.refuse(true);
    let mut refused = bench.dial().await.expect("accepted by the kernel");
    assert!(refused.read(&mut [0; 1]).await.is_err(), "then reset");
    bench.handle.wait_for(|counters| counters.refused == 1).await;
    exchange(&mut *client, &mut *server).await;
    bench.handle.refuse(false);
    let (mut client, mut server) = bench.pair().await;
    exchange(&mut *client, &mut *server).await;
}

#[tokio::test]
async fn a_closed_listener_refuses_and_opens_again_on_its_address() {
    for bench in [tcp_bench().await, unix_bench().await] {
        let (mut client, mut server) = bench.pair().await;
        for _ in 0..3 {
            bench.handle.listen(false).await.expect("close");
            let error = bench.dial().await.err().expect("nobody listens");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            exchange(&mut *client, &mut *server).await;
            bench.handle.listen(true).await.expect("open");
            let (mut client, mut server) = bench.pair().await;
            exchange(&mut *client, &mut *server).await;
        }
        let Bench { proxy, handle, .. } = bench;
        drop(proxy);
        assert_eq!(
            client.read(&mut [0; 1]).await.map_err(|_| ()).unwrap_or(0),
            0,
            "connections end with it"
        );
        assert!(handle.listen(true).await.is_err());
    }
}

#[tokio::test]
async fn an_unreachable_target_is_a_reset() {
    let bench = tcp_bench().await;
    let Bench {
        target,
        handle,
        proxy: _proxy,
        folder: _folder,
    } = bench;
    drop(target);
    let Address::Tcp { host, port } = handle.address().clone() else {
        unreachable!()
    };
    let mut client = TcpStream::connect((host, port)).await.expect("the proxy accepts");
    assert!(client.read(&mut [0; 1]).await.is_err());
    handle
        .wait_for(|counters| counters.unreachable == 1 && counters.live == 0)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_a_delay_and_keeps_order() {
    let bench = tcp_bench().await;
    let (mut client, mut server) = bench.pair().await;
    exchange(&mut *client, &mut *server).await;
    bench.handle.delay(Duration::from_millis(40));
    let start = Instant::now();
    exchange(&mut *client, &mut *server).await;
    assert!(
        start.elapsed() >= Duration::from_millis(80),
        "{:?}",
        start.elapsed()
    );
    for byte in 0..200_u8 {
        client.write_all(&[byte]).await.expect("write");
        bench.handle.delay(Duration::from_millis(200 - u64::from(byte)));
        tokio::task::yield_now().await;
    }
    let mut got = [0; 200];
    server.read_exact(&mut got).await.expect("read");
    assert!(got.iter().copied().eq(0..200));
}

#[tokio::test(start_paused = true)]
async fn a_throttle_holds_over_all_connections_together() {
    let bench = tcp_bench().await;
    bench.handle.throttle(Some(1_000_000));
    let start = Instant::now();
    let mut transfers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (mut client, mut server) = bench.pair().await;
        transfers.spawn(async move {
            client.write_all(&vec![1; 1_000_000]).await.expect("write");
            client.shutdown().await.expect("shutdown");
            client
        });
        transfers.spawn(async move {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.expect("read");
            assert_eq!(got.len(), 1_000_000);
            server
        });
    }
    transfers.join_all().await;
    assert!(
        start.elapsed() >= Duration::from_millis(2_990),
        "{:?}",
        start.elapsed()
    );
    bench.handle.throttle(None);
    let (mut client, mut server) = bench.pair().await;
    exchange(&mut *client, &mut *server).await;
}

#[tokio::test(start_paused = true)]
async fn a_lifted_throttle_frees_who_waits_for_it() {
    let bench = tcp_bench().await;
    let (mut client, mut server) = bench.pair().await;
    bench.handle.throttle(Some(1));
    client.write_all(&[1; 100_000]).await.expect("write");
    bench
        .handle
        .wait_for(|counters| counters.to_target_bytes == 3)
        .await;
    let start = Instant::now();
    bench.handle.throttle(None);
    server.read_exact(&mut [0; 100_000]).await.expect("read");
    assert!(start.elapsed() < Duration::from_secs(60), "not a byte a second");
}
