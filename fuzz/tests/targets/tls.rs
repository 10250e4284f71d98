//! What may be said to either end of TLS before it is known who speaks, and by one in the middle.

use std::sync::LazyLock;
use std::time::Duration;

use bolero::check;
use bytes::{Bytes, BytesMut};
use sheetbend_core::carrier::tls::{ClientTls, Inner, ServerTls, Tls, Trust, certificates};
use sheetbend_core::carrier::{Carrier, CarrierError};
use sheetbend_core::handshake::Security;
use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;
use sheetbend_core::wire::OutBuffer;

/// 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

macro_rules! cert {
    ($name:literal) => {
        include_bytes!(concat!("../../../core/tests/certs/", $name))
    };
}

static SERVER: LazyLock<ServerTls> =
    LazyLock::new(|| ServerTls::from_pem(cert!("server.pem"), cert!("server.key")).expect("sound"));
static CLIENT: LazyLock<ClientTls> = LazyLock::new(|| {
    let roots = certificates(cert!("ca.pem")).expect("sound");
    ClientTls::new(&Trust::Roots(roots)).expect("sound")
});

struct End {
    carrier: Carrier,
    wire: BytesMut,
    input: BytesMut,
    clean: usize,
}

impl End {
    fn new(tls: Tls) -> End {
        End {
            carrier: Carrier::records(Security::Plain).over_tls(tls),
            wire: BytesMut::new(),
            input: BytesMut::new(),
            clean: 0,
        }
    }

    fn server() -> End {
        End::new(Tls::server(&SERVER, Rng::from_seed([2; 32]), EPOCH).expect("sound"))
    }

    fn client() -> End {
        let tls = Tls::client(
            &CLIENT,
            "localhost",
            Inner::Native,
            Rng::from_seed([1; 32]),
            EPOCH,
        );
        End::new(tls.expect("sound"))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        self.wire.extend_from_slice(bytes);
        let taken =
            self.carrier
                .handle_input(Timestamp::ZERO, &mut self.wire, &mut self.input, &mut self.clean);
        assert!(self.wire.is_empty(), "what came is kept by TLS, or dropped");
        taken
    }

    fn say(&mut self, words: &'static [u8]) -> Vec<u8> {
        let mut out = OutBuffer::new();
        self.carrier.prepare(&mut out);
        out.put_shared(Bytes::from_static(words));
        self.carrier.seal(Timestamp::ZERO, &mut out);
        drain(&mut out)
    }

    fn last_words(&mut self) -> Vec<u8> {
        let mut out = OutBuffer::new();
        self.carrier.close(&mut out);
        drain(&mut out)
    }
}

fn drain(out: &mut OutBuffer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let chunk = out.chunk().to_vec();
        out.advance(chunk.len());
        bytes.extend(chunk);
    }
    bytes
}

/// Whether an end refuses, which is the same however what it is told is cut. Nothing of it is ever taken for data.
fn refuses(new: fn() -> End, bytes: &[u8], step: usize) -> bool {
    let mut end = new();
    end.say(b"");
    let mut refused = false;
    for piece in bytes.chunks(step) {
        refused = end.take(piece).is_err();
        if refused {
            break;
        }
    }
    assert!(!end.carrier.is_ready(), "a handshake with nobody");
    assert_eq!((end.clean, end.input.len()), (0, 0));
    // The last words are an alert, if there are any (RFC 8446 §6), or what was to be said before.
    let words = end.last_words();
    assert!(words.is_empty() || matches!(words[0], 0x14..=0x17), "{words:?}");
    assert!(end.say(b"more").is_empty(), "it has said goodbye");
    refused
}

/// What a stranger says to a server, and what a stranger answers a client.
#[test]
fn strangers() {
    check!().for_each(|bytes: &[u8]| {
        let Some((cut, bytes)) = bytes.split_first() else {
            return;
        };
        for new in [End::server as fn() -> End, End::client] {
            let whole = refuses(new, bytes, bytes.len().max(1));
            assert_eq!(whole, refuses(new, bytes, usize::from(*cut) % 31 + 1));
        }
    });
}

/// Somebody in the middle changes, cuts out or puts in bytes of a conversation. Data arrives as it was said, or not at
/// all; and if both ends believe that they have met, they agree about it.
#[test]
fn meddling() {
    check!().for_each(|bytes: &[u8]| {
        let (mut near, mut far) = (End::client(), End::server());
        let mut changes = bytes.chunks_exact(4);
        let mut meddle = |mut said: Vec<u8>| {
            if let Some(&[what, high, low, value]) = changes.next()
                && !said.is_empty()
            {
                let at = usize::from(u16::from_be_bytes([high, low])) % said.len();
                match what % 4 {
                    0 => {}
                    1 => said[at] ^= value,
                    2 => said.truncate(at),
                    _ => said.insert(at, value),
                }
            }
            said
        };
        for _ in 0..4 {
            let words = if near.carrier.is_ready() {
                b"near"
            } else {
                &b""[..]
            };
            let said = meddle(near.say(words));
            if far.take(&said).is_err() {
                break;
            }
            let words = if far.carrier.is_ready() { b"far!" } else { &b""[..] };
            let said = meddle(far.say(words));
            if near.take(&said).is_err() {
                break;
            }
        }
        let all = |end: &End, words: &[u8]| end.input[..end.clean].chunks(4).all(|said| said == words);
        assert!(all(&far, b"near") && all(&near, b"far!"));
        if near.carrier.is_ready() && far.carrier.is_ready() {
            let (near, far) = (near.carrier.capabilities(), far.carrier.capabilities());
            assert!(near.exporter.is_some() && near.exporter == far.exporter);
        }
    });
}
