//! What a connection speaks, by its first bytes, so that one port serves all. PROTOCOL 14.4.

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// More bytes are needed.
    Unclear,
    /// Records as they are.
    Native,
    /// A TLS ClientHello.
    Tls,
    /// A request of HTTP/1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// Nothing that we know.
    Unknown,
}

/// The preface of HTTP/2, RFC 9113 §3.4.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method of HTTP that is waited for, with the blank behind it.
const LONGEST_METHOD: usize = 16;

/// Tells by the bytes that a client sent first. At most 24 are needed.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [] => Sniffed::Unclear,
        // A record of the handshake is shorter than 64 KiB: the first byte of its length is 0.
        [0, ..] => Sniffed::Native,
        // RFC 8446 §5.1: a handshake record of a version 3.x.
        [0x16] => Sniffed::Unclear,
        [0x16, 3, ..] => Sniffed::Tls,
        [b'P', b'R', b'I', b' ', ..] if bytes.iter().zip(HTTP2).all(|(a, b)| a == b) => {
            match bytes.len() >= HTTP2.len() {
                true => Sniffed::Http2,
                false => Sniffed::Unclear,
            }
        }
        [first, ..] if first.is_ascii_uppercase() => sniff_method(bytes),
        _ => Sniffed::Unknown,
    }
}

fn sniff_method(bytes: &[u8]) -> Sniffed {
    let window = bytes.get(..LONGEST_METHOD.min(bytes.len())).unwrap_or_default();
    match window.iter().position(|byte| !byte.is_ascii_uppercase()) {
        Some(at) if window.get(at) == Some(&b' ') => Sniffed::Http1,
        None if window.len() < LONGEST_METHOD => Sniffed::Unclear,
        _ => Sniffed::Unknown,
    }
}

/// What an HTTP/2 client is told: empty SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED. RFC 9113 §7.
pub const HTTP2_REFUSAL: &[u8] = &[
    0, 0, 0, 4, 0, 0, 0, 0, 0, // SETTINGS
    0, 0, 8, 7, 0, 0, 0, 0, 0, // GOAWAY
    0, 0, 0, 0, 0, 0, 0, 0xd,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        for (bytes, expected) in [
            (&b""[..], Sniffed::Unclear),
            (b"\x00", Sniffed::Native),
            (b"\x00\x01\x20\x08", Sniffed::Native),
            (b"\x16", Sniffed::Unclear),
            (b"\x16\x03\x01", Sniffed::Tls),
            (b"\x16\x02", Sniffed::Unknown),
            (b"G", Sniffed::Unclear),
            (b"GET", Sniffed::Unclear),
            (b"GET /", Sniffed::Http1),
            (b"OPTIONS * HTTP/1.1", Sniffed::Http1),
            (b"PRI", Sniffed::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Sniffed::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nS", Sniffed::Unclear),
            (b"PRI /x", Sniffed::Http1),
            (b"GE\x00", Sniffed::Unknown),
            (b"AAAAAAAAAAAAAAAAAAAAAAAA", Sniffed::Unknown),
            (b"get /", Sniffed::Unknown),
            (b"\x80", Sniffed::Unknown),
            (b"SSH-2.0", Sniffed::Unknown),
        ] {
            assert_eq!(sniff(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn more_bytes_do_not_change_what_was_told() {
        for whole in [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x03abc",
        ] {
            let told = sniff(whole);
            for at in 0..whole.len() {
                let early = sniff(&whole[..at]);
                assert!(early == Sniffed::Unclear || early == told, "{at}: {early:?}");
            }
        }
    }
}
