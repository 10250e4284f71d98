//! What a proxy may answer, and what a user or an environment may call a proxy.

use bolero::check;
use bytes::BytesMut;
use sheetbend_core::carrier::proxy::{NoProxy, Proxy, ProxyError, ProxyRules, Tunnel, TunnelLimits};
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

const LIMITS: TunnelLimits = TunnelLimits {
    head: 300,
    interim: 3,
    timeout: std::time::Duration::from_secs(1),
};

/// What became of it, what it said, and what it left for the target.
type Told = (Result<bool, ProxyError>, Vec<u8>, Vec<u8>);

fn outcome(proxy: &Proxy, bytes: &[u8], step: usize) -> Told {
    let mut tunnel = Tunnel::new(proxy, "a.example", 443, LIMITS, Timestamp::ZERO).expect("a target");
    let mut said = Vec::new();
    let mut input = BytesMut::new();
    let mut state = Ok(false);
    for piece in bytes.chunks(step) {
        drain(&mut tunnel, &mut said);
        input.extend_from_slice(piece);
        // What is behind the answer is the target's: nobody asks the machine again.
        if state == Ok(false) {
            state = tunnel.handle_input(&mut input);
        }
    }
    drain(&mut tunnel, &mut said);
    assert_eq!(tunnel.is_open(), state == Ok(true));
    assert_eq!(tunnel.poll_timeout().is_some(), state == Ok(false));
    if state.is_err() {
        assert_eq!(tunnel.handle_input(&mut input), state);
        input.clear();
    }
    (state, said, input.to_vec())
}

fn drain(tunnel: &mut Tunnel, said: &mut Vec<u8>) {
    let mut out = OutBuffer::new();
    tunnel.poll_transmit(&mut out);
    said.extend_from_slice(out.chunk());
}

/// The same comes of the same answers however they are cut, and no byte of the target is lost.
#[test]
fn answers() {
    check!().for_each(|bytes: &[u8]| {
        let Some((choice, bytes)) = bytes.split_first() else {
            return;
        };
        let url = ["http://p:1", "http://u:p@p:1", "socks5://p", "socks5h://u:p@p"][usize::from(choice % 4)];
        let proxy: Proxy = url.parse().expect("a proxy");
        let whole = outcome(&proxy, bytes, bytes.len().max(1));
        let pieces = outcome(&proxy, bytes, usize::from(choice / 4) % 17 + 1);
        assert_eq!(whole, pieces);
        if whole.0 == Ok(true) {
            assert!(bytes.ends_with(&whole.2));
        }
        if url.starts_with("http") {
            // A tunnel opens behind an empty line, and after a status of success alone.
            if whole.0 == Ok(true) {
                let head = &bytes[..bytes.len() - whole.2.len()];
                assert!(head.ends_with(b"\r\n\r\n"));
                let last = head[..head.len() - 4].rsplit(|byte| *byte == b'\n');
                assert!(last.into_iter().any(|line| line.get(8..10) == Some(b" 2")));
            } else if whole.0 == Ok(false) {
                assert!(bytes.len() < 4 * LIMITS.head);
            }
        }
    });
}

/// What is taken for a proxy reads back as the same one, and never shows its password.
#[test]
fn addresses() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        match text.parse::<Proxy>() {
            Ok(proxy) => {
                let shown = proxy.to_string();
                let again: Proxy = shown.parse().expect("as it is printed");
                assert_eq!(
                    (again.host(), again.port(), again.kind()),
                    (proxy.host(), proxy.port(), proxy.kind())
                );
                assert!(!shown.contains(['@', '\r', '\n']) && proxy.port() > 0);
                if text != text.trim() {
                    return;
                }
                let rules = ProxyRules::from_variables(|name| (name == "ALL_PROXY").then(|| text.to_owned()));
                let rules = rules.expect("as by itself");
                assert_eq!(rules.proxy("tcp", "h", 1).is_some(), !text.is_empty());
            }
            Err(error) => assert!(!error.to_string().contains(['\r', '\n']) || text.contains(['\r', '\n'])),
        }
    });
}

/// A list of hosts has what is in it, and by a star everything.
#[test]
fn lists() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let Ok(list) = text.parse::<NoProxy>() else { return };
        assert_eq!(list, NoProxy::of_environment(text));
        let words: Vec<&str> = text
            .split([',', ' ', '\t', '\r', '\n'])
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(list.is_empty(), words.is_empty());
        if words.contains(&"*") {
            assert!(list.contains("anything.example", 1));
        }
        for word in &words {
            // A name without any of the marks stands for itself and for what is below it.
            let parts = word.split('.');
            if parts
                .clone()
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphabetic()))
            {
                assert!(
                    list.contains(word, 7) && list.contains(&format!("x.{word}"), 7),
                    "{word}"
                );
            }
        }
        for host in ["127.0.0.1", "::1", "a.example", ""] {
            list.contains(host, 443);
        }
    });
}
