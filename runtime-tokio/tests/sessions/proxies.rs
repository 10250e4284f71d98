//! Sessions through HTTP and SOCKS5 proxies, and what such proxies do to them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::common::{free_address, serve_echo, server_tls, test_roots, tls_acceptor};
use sheetbend_tokio::{
    Address, Client, ClientBuilder, ConnectError, Proxy, ProxyRules, Server, Trust, runtime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const SCHEMES: [&str; 4] = ["tcp", "tls", "ws", "wss"];

/// Who may use it: user and password.
type Login = Option<(&'static str, &'static str)>;

/// A proxy that leads where it is asked to, and takes note of it.
struct TestProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    cut: watch::Sender<u64>,
}

impl TestProxy {
    async fn start(login: Login) -> TestProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (cut, cuts) = watch::channel(0);
        let known = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (known, mut cuts) = (known.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let first = near.read_u8().await.unwrap();
                    let target = match first {
                        5 => socks5(&mut near, login).await.unwrap(),
                        first => connect(&mut near, first, login).await.unwrap(),
                    };
                    let Some(target) = target else { return };
                    known.lock().unwrap().push(target.clone());
                    let far = TcpStream::connect(target).await;
                    let answer: &[u8] = match (first, far.is_ok()) {
                        (5, true) => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
                        (5, false) => &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
                        (_, true) => b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n",
                        (_, false) => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
                    };
                    near.write_all(answer).await.unwrap();
                    let Ok(mut far) = far else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        TestProxy { address, asked, cut }
    }

    fn url(&self, scheme: &str, login: &str) -> String {
        format!("{scheme}://{login}{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn connect(near: &mut TcpStream, first: u8, login: Login) -> io::Result<Option<String>> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
    assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
    // RFC 7617 §2: me:secret, in base64.
    let granted = login.is_none() || head.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n");
    if !granted {
        near.write_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
            .await?;
        return Ok(None);
    }
    Ok(Some(target.to_owned()))
}

async fn socks5(near: &mut TcpStream, login: Login) -> io::Result<Option<String>> {
    let count = usize::from(near.read_u8().await?);
    let mut methods = vec![0; count];
    near.read_exact(&mut methods).await?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        near.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    near.write_all(&[5, method]).await?;
    if let Some((user, password)) = login {
        assert_eq!(near.read_u8().await?, 1);
        let told = (text(near).await?, text(near).await?);
        let granted = told == (user.to_owned(), password.to_owned());
        near.write_all(&[1, u8::from(!granted)]).await?;
        if !granted {
            return Ok(None);
        }
    }
    let mut head = [0; 4];
    near.read_exact(&mut head).await?;
    assert_eq!(head[..3], [5, 1, 0]);
    let host = match head[3] {
        1 => {
            let mut address = [0; 4];
            near.read_exact(&mut address).await?;
            std::net::Ipv4Addr::from(address).to_string()
        }
        4 => {
            let mut address = [0; 16];
            near.read_exact(&mut address).await?;
            format!("[{}]", std::net::Ipv6Addr::from(address))
        }
        3 => text(near).await?,
        other => panic!("address of kind {other}"),
    };
    let port = near.read_u16().await?;
    Ok(Some(format!("{host}:{port}")))
}

async fn text(near: &mut TcpStream) -> io::Result<String> {
    let len = usize::from(near.read_u8().await?);
    let mut bytes = vec![0; len];
    near.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

async fn server() -> (Server, u16) {
    let server = Server::builder().listen("tcp://127.0.0.1:0").unwrap();
    let server = server.tls(server_tls()).bind(runtime()).await.unwrap();
    let Address::Tcp { port, .. } = server.addresses()[0] else {
        panic!("over tcp")
    };
    (server, port)
}

fn client(url: &str, proxy: &str) -> ClientBuilder {
    let proxy: Proxy = proxy.parse().unwrap();
    let client = Client::builder().endpoint(url).unwrap().trust(test_roots());
    client.proxies(ProxyRules::all(proxy)).proxy_trust(test_roots())
}

/// A proxy in front of which TLS is spoken.
async fn inside_tls(proxy: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls_acceptor();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else {
                    return;
                };
                let mut far = TcpStream::connect(proxy).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

async fn why_not(client: ClientBuilder) -> String {
    match client.connect(runtime()).await {
        Err(ConnectError::Unreachable(why)) => why[0].1.clone(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it got in"),
    }
}

/// A session is made over each transport, and joined once more after its connection was cut: all by the proxy.
async fn goes_through(kind: &str, login: Login) {
    let proxy = TestProxy::start(login).await;
    let told = login.map_or(String::new(), |(user, password)| format!("{user}:{password}@"));
    let (server, port) = server().await;
    let mut way = proxy.url(kind, &told);
    if kind == "https" {
        way = format!("https://{told}{}", inside_tls(proxy.address).await);
    }
    for scheme in SCHEMES {
        let url = format!("{scheme}://localhost:{port}");
        let client = client(&url, &way);
        let (session, peer) = tokio::join!(client.connect(runtime()), server.accept());
        let session = session.unwrap();
        let _echo = serve_echo(peer.unwrap());
        assert_eq!(session.request("echo", "a").await.unwrap(), "a");
        proxy.cut.send_modify(|count| *count += 1);
        assert_eq!(session.request("echo", "b").await.unwrap(), "b");
    }
    let asked = proxy.asked();
    assert!(asked.len() >= 2 * SCHEMES.len(), "{asked:?}");
    let by_name = kind != "socks5";
    for target in asked {
        assert!(target.ends_with(&format!(":{port}")), "{target}");
        assert_eq!(target.starts_with("localhost:"), by_name, "{target}");
    }
}

#[tokio::test]
async fn every_transport_goes_through_http_connect() {
    goes_through("http", None).await;
}

#[tokio::test]
async fn every_transport_goes_through_http_connect_with_a_password() {
    goes_through("http", Some(("me", "secret"))).await;
}

#[tokio::test]
async fn every_transport_goes_through_http_connect_inside_tls() {
    goes_through("https", Some(("me", "secret"))).await;
}

#[tokio::test]
async fn a_proxy_that_cannot_be_trusted_hears_no_password() {
    let proxy = TestProxy::start(Some(("me", "secret"))).await;
    let front = inside_tls(proxy.address).await;
    let (_server, port) = server().await;
    let of = |trust: Trust| {
        let way: Proxy = format!("https://me:secret@{front}").parse().unwrap();
        let client = Client::builder().endpoint(format!("tcp://localhost:{port}"));
        let client = client.unwrap().proxies(ProxyRules::all(way));
        client.proxy_trust(trust)
    };
    let others = crate::common::other_roots().into_iter().map(Into::into).collect();
    let why = why_not(of(Trust::Roots(others))).await;
    assert!(
        why.contains("through the proxy https://127.0.0.1:") && why.contains("unknown issuer"),
        "{why}"
    );
    // One that speaks no TLS is told nothing either.
    let plain: Proxy = format!("https://me:secret@{}", proxy.address).parse().unwrap();
    let client = Client::builder()
        .endpoint(format!("tcp://localhost:{port}"))
        .unwrap();
    let client = client.proxies(ProxyRules::all(plain)).proxy_trust(test_roots());
    assert!(client.connect(runtime()).await.is_err());
    assert_eq!(proxy.asked(), [""; 0]);
}

#[tokio::test]
async fn every_transport_goes_through_socks5() {
    goes_through("socks5", None).await;
}

#[tokio::test]
async fn every_transport_goes_through_socks5_with_a_password_and_names_resolved_there() {
    goes_through("socks5h", Some(("me", "secret"))).await;
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_says_so() {
    let proxy = TestProxy::start(Some(("me", "secret"))).await;
    let (_server, port) = server().await;
    let url = format!("ws://localhost:{port}/");
    for kind in ["http", "socks5h"] {
        let without = why_not(client(&url, &proxy.url(kind, ""))).await;
        assert!(without.contains("wants a user and a password"), "{without}");
        assert!(
            without.starts_with(&format!("through the proxy {kind}://127.0.0.1:")),
            "{without}"
        );
        let wrong = why_not(client(&url, &proxy.url(kind, "me:hidden@"))).await;
        assert!(wrong.contains("refuses the user or the password"), "{wrong}");
        assert!(!wrong.contains("hidden"), "{wrong}");
    }
}

#[tokio::test]
async fn what_needs_no_proxy_is_reached_straight() {
    let proxy = TestProxy::start(None).await;
    let (server, port) = server().await;
    let rules = ProxyRules::all(proxy.url("http", "").parse().unwrap());
    let rules = rules.except("localhost".parse().unwrap());
    let of = |host: &str| {
        let client = Client::builder()
            .endpoint(format!("tcp://{host}:{port}"))
            .unwrap();
        client.proxies(rules.clone())
    };
    of("localhost").connect(runtime()).await.unwrap();
    assert_eq!(proxy.asked(), [""; 0]);
    of("127.0.0.1").connect(runtime()).await.unwrap();
    assert_eq!(proxy.asked(), [format!("127.0.0.1:{port}")]);
    drop(server);

    // No proxy leads to a socket of this machine.
    let dir = tempfile::tempdir().unwrap();
    let server = sheetbend_tokio::bind(free_address("unix", &dir)).await.unwrap();
    let local = Client::builder().endpoint(&server.addresses()[0]).unwrap();
    local.proxies(rules).connect(runtime()).await.unwrap();
}

/// A proxy that says this, whatever it is asked, and then what it is for.
async fn says(words: &[u8], closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let words = words.to_vec();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let words = words.clone();
            tokio::spawn(async move {
                let _ = near.write_all(&words).await;
                let _ = near.flush().await;
                // What was asked is read, so that the end is not a reset.
                let mut asked = [0; 1024];
                while !closes && near.read(&mut asked).await.is_ok_and(|count| count > 0) {}
                let _ = near.read(&mut asked).await;
            });
        }
    });
    address.to_string()
}

#[tokio::test]
async fn hostile_proxies_are_left_with_a_word_about_each() {
    let (_server, port) = server().await;
    let url = format!("wss://localhost:{port}/");
    let huge = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 40_000]].concat();
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(3000);
    for (kind, words, said) in [
        ("http", &huge[..], "too large"),
        ("http", &endless[..], "does not come to its answer"),
        ("http", b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "not an HTTP/1.1 head"),
        ("http", b"HTTP/1.1 200 OK\n\n", "LF without CR"),
        ("http", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
        (
            "http",
            b"HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM\r\n\r\n",
            "other than by user",
        ),
        // What it leads to is not the server.
        (
            "http",
            b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n",
            "TLS",
        ),
        ("socks5h", b"\x04\x5a", "another version"),
        ("socks5h", b"\x05\x00\x05\x02", "not allowed by its rules"),
        ("socks5h", b"\x05\x00\x05\x00\x00\x09", "an unknown kind"),
        ("socks5h", b"HTTP/1.1 400 Bad Request\r\n\r\n", "another version"),
    ] {
        let proxy = says(words, false).await;
        let why = why_not(client(&url, &format!("{kind}://{proxy}"))).await;
        assert!(why.contains(said), "{said}: {why}");
        assert!(!why.contains('\n'), "{why}");
    }
    for kind in ["http", "socks5h"] {
        let proxy = says(b"", true).await;
        let why = why_not(client(&url, &format!("{kind}://{proxy}"))).await;
        assert!(why.contains("closed the connection before it answered"), "{why}");
    }
}

// Time is tokio's, and runs on by itself while everybody waits.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_is_left_in_time() {
    for (kind, words) in [
        ("http", &b"HTTP/1.1 200"[..]),
        ("socks5h", b"\x05"),
        ("http", b""),
    ] {
        let proxy = says(words, false).await;
        let why = why_not(client("tcp://localhost:1", &format!("{kind}://{proxy}"))).await;
        assert!(why.contains("does not answer in time"), "{why}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let why = why_not(client("tcp://localhost:1", &format!("http://{address}"))).await;
    assert!(
        why.contains(&format!("through the proxy http://{address}: ")),
        "{why}"
    );
}
