use std::collections::BTreeMap;

use super::*;

fn proxy(text: &str) -> Proxy {
    text.parse().expect("a proxy")
}

fn tunnel(proxy_text: &str, host: &str) -> Tunnel {
    Tunnel::new(
        &proxy(proxy_text),
        host,
        443,
        TunnelLimits::default(),
        Timestamp::ZERO,
    )
    .expect("a target")
}

fn said(tunnel: &mut Tunnel) -> Vec<u8> {
    let mut out = OutBuffer::new();
    tunnel.poll_transmit(&mut out);
    out.chunk().to_vec()
}

/// What becomes of it when the proxy says all of that at once, and byte by byte: the same.
fn answered(proxy: &str, answers: &[&[u8]]) -> Result<bool, ProxyError> {
    let mut whole = tunnel(proxy, "a.example");
    let mut outcome = Ok(false);
    for answer in answers {
        outcome = whole.handle_input(&mut BytesMut::from(*answer));
    }
    let mut slow = tunnel(proxy, "a.example");
    let mut input = BytesMut::new();
    let mut by_bytes = Ok(false);
    for byte in answers.concat() {
        input.extend_from_slice(&[byte]);
        by_bytes = slow.handle_input(&mut input);
        if by_bytes != Ok(false) {
            break;
        }
    }
    assert_eq!(outcome, by_bytes);
    assert_eq!(whole.poll_timeout().is_none(), outcome != Ok(false));
    outcome
}

fn connect(answer: &str) -> Result<bool, ProxyError> {
    answered("http://p:8080", &[answer.as_bytes()])
}

// RFC 9110 §9.3.6, RFC 7617 §2.
#[test]
fn connect_asks_as_the_rfc_has_it() {
    let mut plain = tunnel("http://p:8080", "a.example");
    assert_eq!(
        said(&mut plain),
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
    );
    assert_eq!(said(&mut plain), b"");
    let mut six = tunnel("http://Aladdin:open%20sesame@p:8080", "::1");
    assert_eq!(
        said(&mut six),
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
          Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    );
}

#[test]
fn connect_opens_with_any_2xx_and_leaves_what_follows() {
    let mut tunnel = tunnel("http://p:8080", "a.example");
    let mut input = BytesMut::from(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 200 Connection established\r\n\
         Content-Length: 5\r\n\r\nrest",
    );
    assert_eq!(tunnel.handle_input(&mut input), Ok(true));
    assert_eq!(&input[..], b"rest");
    assert!(tunnel.is_open());
    assert_eq!(tunnel.poll_timeout(), None);
    assert_eq!(tunnel.handle_timeout(Timestamp::MAX), Ok(()));
    assert_eq!(connect("HTTP/1.1 204 No Content\r\n\r\n"), Ok(true));
}

/// It answers what it was not asked yet, and is gone before it can be.
#[test]
fn a_proxy_that_is_ahead_of_its_client_and_closes_is_closed() {
    let mut tunnel = tunnel("socks5h://p", "a.example");
    let mut ahead = BytesMut::from(&b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"[..]);
    assert_eq!(tunnel.handle_input(&mut ahead), Ok(true));
    assert_eq!(tunnel.handle_end(), ProxyError::Closed);
    assert!(!tunnel.is_open());
    assert_eq!(tunnel.handle_end(), ProxyError::Closed);
}

#[test]
fn refusals_of_connect_are_told_apart() {
    let refused = connect("HTTP/1.1 403 Not\u{1b}[31m here\r\n\r\n");
    assert!(
        matches!(&refused, Err(ProxyError::Refused { status: 403, reason }) if !reason.contains('\u{1b}'))
            || matches!(&refused, Err(ProxyError::Http(_))),
        "{refused:?}"
    );
    let bad_gateway = connect("HTTP/1.1 502 Bad Gateway\r\n\r\n").expect_err("refused");
    assert_eq!(bad_gateway.to_string(), "the proxy refuses: 502 Bad Gateway");
    let wanted =
        "HTTP/1.1 407 Who\r\nProxy-Authenticate: Digest realm=x\r\nProxy-Authenticate: basic realm=y\r\n\r\n";
    assert_eq!(connect(wanted), Err(ProxyError::AuthenticationRequired("http")));
    assert_eq!(
        answered("http://me:wrong@p:80", &[wanted.as_bytes()]),
        Err(ProxyError::CredentialsRefused)
    );
    assert_eq!(
        connect("HTTP/1.1 407 Who\r\nProxy-Authenticate: Negotiate\r\n\r\n"),
        Err(ProxyError::UnknownAuthentication)
    );
    assert!(matches!(
        connect("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n"),
        Err(ProxyError::Refused { .. })
    ));
}

#[test]
fn a_hostile_http_proxy_is_found_out() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(17_000));
    assert!(matches!(connect(&huge), Err(ProxyError::Http(_))));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert!(matches!(connect(&many), Err(ProxyError::Http(_))));
    assert_eq!(
        connect(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(9)),
        Err(ProxyError::Endless)
    );
    assert_eq!(connect(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(8)), Ok(false));
    for other in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        assert!(matches!(connect(other), Err(ProxyError::Http(_))), "{other:?}");
    }
}

// RFC 1928 §3, §4 and §6.
#[test]
fn socks5_asks_as_the_rfc_has_it() {
    let mut tunnel = tunnel("socks5h://p", "a.example");
    assert_eq!(said(&mut tunnel), [5, 1, 0]);
    let mut input = BytesMut::from(&[5, 0][..]);
    assert_eq!(tunnel.handle_input(&mut input), Ok(false));
    assert_eq!(said(&mut tunnel), b"\x05\x01\x00\x03\x09a.example\x01\xbb");
    input.extend_from_slice(b"\x05\x00\x00\x03\x01h\x00\x50rest");
    assert_eq!(tunnel.handle_input(&mut input), Ok(true));
    assert_eq!(&input[..], b"rest");
    let request = |host: &str| {
        let mut tunnel = super::tests::tunnel("socks5://p", host);
        said(&mut tunnel);
        tunnel
            .handle_input(&mut BytesMut::from(&[5, 0][..]))
            .expect("goes on");
        said(&mut tunnel)
    };
    assert_eq!(request("127.0.0.1"), b"\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb");
    assert_eq!(request("::1")[..4], [5, 1, 0, 4]);
    assert_eq!(request("::1").len(), 4 + 16 + 2);
}

// RFC 1929 §2.
#[test]
fn socks5_tells_user_and_password_where_the_proxy_wants_them() {
    let mut tunnel = tunnel("socks5://me:secret@p", "a.example");
    assert_eq!(said(&mut tunnel), [5, 2, 0, 2]);
    let mut input = BytesMut::from(&[5, 2][..]);
    assert_eq!(tunnel.handle_input(&mut input), Ok(false));
    assert_eq!(said(&mut tunnel), b"\x01\x02me\x06secret");
    input.extend_from_slice(&[1, 0]);
    assert_eq!(tunnel.handle_input(&mut input), Ok(false));
    assert_eq!(said(&mut tunnel)[..3], [5, 1, 0]);
    let all = |answers: &[&[u8]]| answered("socks5://me:secret@p", answers);
    let reply = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..];
    assert_eq!(all(&[&[5, 2], &[1, 0], reply]), Ok(true));
    assert_eq!(all(&[&[5, 0], reply]), Ok(true));
    assert_eq!(all(&[&[5, 2], &[1, 1]]), Err(ProxyError::CredentialsRefused));
    assert_eq!(all(&[&[5, 0xff]]), Err(ProxyError::UnknownAuthentication));
    assert!(matches!(all(&[&[5, 2], &[7, 0]]), Err(ProxyError::NotSocks5(_))));
}

#[test]
fn a_hostile_socks_proxy_is_found_out() {
    let all = |answers: &[&[u8]]| answered("socks5://p", answers);
    assert_eq!(
        all(&[&[5, 0xff]]),
        Err(ProxyError::AuthenticationRequired("socks5"))
    );
    for wrong in [
        &[&[4, 0x5a][..]][..],
        &[b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        &[&[5, 2]],
        &[&[5, 1]],
        &[&[5, 0], &[4, 0, 0, 1]],
        &[&[5, 0], &[5, 0, 1, 1]],
        &[&[5, 0], &[5, 0, 0, 2, 0, 0, 0, 0, 0, 0]],
    ] {
        assert!(matches!(all(wrong), Err(ProxyError::NotSocks5(_))), "{wrong:?}");
    }
    // What says no may be cut short.
    let refused = |reply| all(&[&[5, 0], &[5, reply]]);
    assert_eq!(refused(2), Err(ProxyError::Socks(SocksRefusal::NotAllowed)));
    assert_eq!(
        refused(5),
        Err(ProxyError::Socks(SocksRefusal::ConnectionRefused))
    );
    assert_eq!(refused(77), Err(ProxyError::Socks(SocksRefusal::Other(77))));
    assert_eq!(all(&[&[5, 0], &[5, 0, 0, 3]]), Ok(false));
}

#[test]
fn a_slow_proxy_and_one_that_leaves_are_found_out() {
    for kind in ["http://p:1", "socks5://p"] {
        let mut slow = tunnel(kind, "a.example");
        let at = slow.poll_timeout().expect("a deadline");
        assert_eq!(at, Timestamp::ZERO + TunnelLimits::default().timeout);
        assert_eq!(slow.handle_timeout(Timestamp::ZERO), Ok(()));
        assert_eq!(slow.handle_timeout(at), Err(ProxyError::TimedOut));
        assert_eq!(slow.poll_timeout(), None);
        let mut late = BytesMut::from("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(slow.handle_input(&mut late), Err(ProxyError::TimedOut));
        let mut gone = tunnel(kind, "a.example");
        assert_eq!(gone.handle_end(), ProxyError::Closed);
        assert_eq!(gone.handle_input(&mut late), Err(ProxyError::Closed));
    }
}

#[test]
fn no_proxy_is_asked_for_what_is_no_host() {
    let long = "x".repeat(256);
    for host in ["", "a b", "a\r\nX: y", "a/b", "a@b", "ü.example", &long] {
        for kind in ["http://p:1", "socks5h://p"] {
            let tunnel = Tunnel::new(&proxy(kind), host, 1, TunnelLimits::default(), Timestamp::ZERO);
            assert!(matches!(tunnel, Err(ProxyError::Target(_))), "{host:?}");
        }
    }
}

#[test]
fn proxies_read_back_without_their_passwords() {
    for (text, shown) in [
        ("http://p:8080", "http://p:8080"),
        ("p:8080", "http://p:8080"),
        ("HTTP://p/", "http://p:80"),
        ("socks5://p", "socks5://p:1080"),
        ("socks5h://me:s%3A@[::1]:9/", "socks5h://[::1]:9"),
        ("http://me:p@ss@p:1", "http://p:1"),
        ("http://me@p:1", "http://p:1"),
    ] {
        let proxy = proxy(text);
        assert_eq!(proxy.to_string(), shown);
        assert!(!format!("{proxy:?}").contains("me"), "{proxy:?}");
    }
    assert_ne!(proxy("http://me:a@p:1"), proxy("http://me:b@p:1"));
}

#[test]
fn mistakes_in_a_proxy_are_one_clear_line() {
    let line = |text: &str| {
        let line = text.parse::<Proxy>().expect_err(text).to_string();
        assert!(!line.contains(['\n', '\r']) && !line.contains("secret"), "{line}");
        line
    };
    assert_eq!(
        line("socks4://p:1"),
        "proxies of the kind `socks4` are not spoken here: known are http, https, socks5 and socks5h"
    );
    assert!(line("ftp://p:1").contains("`ftp`"));
    assert!(line("http://me:secret@").contains("no host"));
    assert!(line("http://").contains("no host"));
    assert!(line(":80").contains("no host"));
    assert_eq!(line("http://p:0"), "`0` is not the port of a proxy (1 to 65535)");
    assert!(line("http://p:99999").contains("99999"));
    assert!(line("http://p:+1").contains("+1"));
    assert!(line("http://::1:80").contains("port"));
    assert!(line("http://[::1:80").contains("not the host"));
    assert!(line("http://[p]:80").contains("not the host"));
    assert!(line("http://a b:80").contains("not the host"));
    assert!(line("http://p:80/path").contains("no path"));
    assert!(line("http://:secret@p:80").contains("user is empty"));
    assert!(line("http://a%3Ab:secret@p:80").contains("no colon"));
    assert!(line("http://a:secret%0d%0a@p:80").contains("control"));
    assert!(line("http://a:secret%zz@p:80").contains("%25"));
    assert!(line("http://a:secret%2@p:80").contains("%25"));
    assert!(line(&format!("http://{}:secret@p:80", "u".repeat(256))).contains("255"));
    assert!(line(&"x".repeat(2000)).contains("2000"));
}

#[test]
fn hosts_without_a_proxy_are_known_as_curl_knows_them() {
    let list = |text: &str| text.parse::<NoProxy>().expect("a list");
    let some =
        list("example.com, .corp.example *.x.example\t10.0.0.1,192.168.0.0/16,[fd00::]/8,::1,b.example:8443");
    for host in [
        "example.com",
        "EXAMPLE.com.",
        "www.example.com",
        "corp.example",
        "a.corp.example",
        "y.x.example",
        "10.0.0.1",
        "192.168.77.1",
        "fd12::1",
        "::1",
    ] {
        assert!(some.contains(host, 1), "{host}");
    }
    for host in [
        "notexample.com",
        "example.com.evil",
        "com",
        "10.0.0.2",
        "192.169.0.1",
        "fe80::1",
        "localhost",
        "b.example",
        "::ffff:10.0.0.1",
    ] {
        assert!(!some.contains(host, 1), "{host}");
    }
    assert!(some.contains("b.example", 8443) && some.contains("a.b.example", 8443));
    assert!(list("a:1,*").contains("anything", 1));
    assert!(list("[::1]:7").contains("::1", 7) && !list("[::1]:7").contains("::1", 8));
    assert!(list("10.0.0.1:7").contains("10.0.0.1", 7) && !list("10.0.0.1:7").contains("10.0.0.1", 8));
    assert!(list("0.0.0.0/0").contains("8.8.8.8", 1) && !list("0.0.0.0/0").contains("::1", 1));
    assert!(list("").is_empty() && list(" , ,").is_empty());
    // An address has no domains.
    assert!(!list("0.1").contains("10.0.0.1", 1));
    let line = |text: &str| text.parse::<NoProxy>().expect_err(text).to_string();
    assert_eq!(
        line("10.0.0.0/33"),
        "`10.0.0.0/33` is not a network, as 10.0.0.0/8 is"
    );
    assert!(line("a/b").contains("not a network"));
    assert!(line("ok,http:").contains("neither"));
    assert!(line("a$b").contains("neither"));
    assert!(line(&"a,".repeat(5000)).contains("too long"));
}

#[test]
fn the_environment_is_read_as_others_read_it() {
    let rules = |set: &[(&'static str, &str)]| {
        let known: BTreeMap<&str, &str> = set.iter().copied().collect();
        ProxyRules::from_variables(|name| known.get(name).map(|text| (*text).to_owned()))
    };
    let chosen = |rules: &ProxyRules, transport, host| {
        rules
            .proxy(transport, host, 443)
            .map(|proxy| proxy.host().to_owned())
    };
    let none = rules(&[]).expect("nothing is set");
    assert!(none.is_empty());
    assert_eq!(chosen(&none, "wss", "a"), None);

    let all = rules(&[
        ("HTTPS_PROXY", "http://tunnel:1"),
        ("HTTP_PROXY", "web:1"),
        ("ALL_PROXY", "socks5://last"),
        ("NO_PROXY", "near.example"),
    ]);
    let all = all.expect("sound");
    for (transport, host) in [
        ("tcp", "tunnel"),
        ("tls", "tunnel"),
        ("wss", "tunnel"),
        ("ws", "web"),
        ("http", "web"),
    ] {
        assert_eq!(
            chosen(&all, transport, "far.example").as_deref(),
            Some(host),
            "{transport}"
        );
        assert_eq!(chosen(&all, transport, "x.near.example"), None);
    }
    let last = rules(&[("ALL_PROXY", "socks5://last"), ("https_proxy", " ")]).expect("sound");
    for transport in ["tcp", "wss", "ws"] {
        assert_eq!(chosen(&last, transport, "far").as_deref(), Some("last"));
    }
    let lower = rules(&[("HTTPS_PROXY", "upper:1"), ("https_proxy", "lower:1")]).expect("sound");
    assert_eq!(chosen(&lower, "ws", "far").as_deref(), Some("lower"));
    // httpoxy.org
    let cgi = rules(&[("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")]).expect("sound");
    assert_eq!(chosen(&cgi, "ws", "far"), None);
    let wrong = rules(&[("ALL_PROXY", "socks4://x")]).expect_err("unknown");
    assert!(wrong.to_string().starts_with("ALL_PROXY: "), "{wrong}");
    // What other programs may know of is passed over.
    let mixed = [
        ("ALL_PROXY", "p:1"),
        ("no_proxy", "169.254/16, <local>, near.example"),
    ];
    let mixed = rules(&mixed).expect("sound");
    assert_eq!(chosen(&mixed, "tcp", "near.example"), None);
    assert_eq!(chosen(&mixed, "tcp", "169.254.1.1").as_deref(), Some("p"));
    let one = ProxyRules::all(proxy("p:1")).except("a".parse().expect("a list"));
    assert_eq!(chosen(&one, "ws", "b").as_deref(), Some("p"));
    assert_eq!(chosen(&one, "ws", "a"), None);
}
