use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::carrier::{Carrier, CarrierError};
use crate::handshake::Security;

/// 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

macro_rules! cert {
    ($name:literal) => {
        &include_bytes!(concat!("../../../tests/certs/", $name))[..]
    };
}

fn server_tls() -> ServerTls {
    ServerTls::from_pem(cert!("server.pem"), cert!("server.key")).unwrap()
}

fn roots(pem: &[u8]) -> ClientTls {
    ClientTls::new(&Trust::Roots(certificates(pem).unwrap())).unwrap()
}

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

    fn take(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        self.wire.extend_from_slice(bytes);
        self.carrier
            .handle_input(Timestamp::ZERO, &mut self.wire, &mut self.input, &mut self.clean)
    }

    fn say(&mut self, records: &[Bytes]) -> Vec<u8> {
        let mut out = OutBuffer::new();
        self.carrier.prepare(&mut out);
        records.iter().cloned().for_each(|record| out.put_shared(record));
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
        let chunk = out.chunk();
        bytes.extend_from_slice(chunk);
        let len = chunk.len();
        out.advance(len);
    }
    bytes
}

fn ends(client: &ClientTls, name: &str, server: &ServerTls, inner: Inner) -> (End, End) {
    let near = Tls::client(client, name, inner, Rng::from_seed([1; 32]), EPOCH).unwrap();
    let far = Tls::server(server, Rng::from_seed([2; 32]), EPOCH).unwrap();
    (End::new(near), End::new(far))
}

/// Lets both ends speak until neither has more to say; everything that was said, too.
fn shake_hands(near: &mut End, far: &mut End) -> Result<Vec<u8>, CarrierError> {
    let mut said = Vec::new();
    for _ in 0..10 {
        let words = near.say(&[]);
        said.extend_from_slice(&words);
        if let Err(error) = far.take(&words) {
            near.take(&far.last_words())?;
            return Err(error);
        }
        let words = far.say(&[]);
        said.extend_from_slice(&words);
        if let Err(error) = near.take(&words) {
            // The server learns of it by an alert.
            assert!(far.take(&near.last_words()).is_err());
            return Err(error);
        }
        if near.carrier.is_ready() && far.carrier.is_ready() {
            return Ok(said);
        }
    }
    panic!("the handshake does not end");
}

fn refused(client: &ClientTls, name: &str, server: &ServerTls) -> TlsError {
    let (mut near, mut far) = ends(client, name, server, Inner::Native);
    match shake_hands(&mut near, &mut far) {
        Err(CarrierError::Tls(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_pass_both_ways_however_they_are_cut() {
    for step in [1, 7, 4096, usize::MAX] {
        let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "server", &server_tls(), Inner::Native);
        shake_hands(&mut near, &mut far).unwrap();
        let records: Vec<Bytes> = [10, 40_000, 3]
            .map(|len: usize| Bytes::from(vec![len as u8; len]))
            .to_vec();
        let expected = records.concat();
        for back in [false, true] {
            let (from, to) = match back {
                true => (&mut far, &mut near),
                false => (&mut near, &mut far),
            };
            let sealed = from.say(&records);
            for piece in sealed.chunks(step.min(sealed.len())) {
                to.take(piece).unwrap();
            }
            assert!(to.input[..to.clean] == expected, "cut by {step}, back {back}");
        }
    }
}

#[test]
fn both_ends_are_bound_alike_and_encrypted() {
    let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "127.0.0.1", &server_tls(), Inner::Http1);
    shake_hands(&mut near, &mut far).unwrap();
    let (one, other) = (near.carrier.capabilities(), far.carrier.capabilities());
    assert!(one.exporter.is_some());
    assert_eq!(one.exporter, other.exporter);
    assert_eq!(
        (one.security, other.security),
        (Security::Encrypted, Security::Encrypted)
    );
    assert_eq!(near.carrier.tls().unwrap().inner(), Some(Inner::Http1));
    assert_eq!(far.carrier.tls().unwrap().inner(), Some(Inner::Http1));

    let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "server", &server_tls(), Inner::Native);
    shake_hands(&mut near, &mut far).unwrap();
    assert_ne!(near.carrier.capabilities().exporter, one.exporter);
    assert_eq!(far.carrier.tls().unwrap().inner(), Some(Inner::Native));
}

#[test]
fn the_same_seeds_say_the_same_bytes() {
    let words = || {
        let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "server", &server_tls(), Inner::Native);
        let mut words = shake_hands(&mut near, &mut far).unwrap();
        words.extend(near.say(&[Bytes::from_static(b"record")]));
        words
    };
    assert_eq!(words(), words());
}

#[test]
fn each_reason_to_refuse_a_server_has_its_name() {
    let ca = roots(cert!("ca.pem"));
    let with = |chain, key| ServerTls::from_pem(chain, key).unwrap();
    let expired = with(cert!("expired.pem"), cert!("expired.key"));
    assert!(matches!(refused(&ca, "server", &expired), TlsError::Expired(_)));
    let future = with(cert!("future.pem"), cert!("future.key"));
    assert!(matches!(
        refused(&ca, "server", &future),
        TlsError::NotYetValid(_)
    ));
    let mismatched = refused(&ca, "elsewhere.example", &server_tls());
    assert!(matches!(&mismatched, TlsError::WrongName(why) if why.contains("elsewhere.example")));
    let unknown = refused(&roots(cert!("other-ca.pem")), "server", &server_tls());
    assert_eq!(unknown, TlsError::UnknownIssuer);
}

#[test]
fn a_pin_is_enough_and_the_only_thing() {
    let server = server_tls();
    let pin = server.pin().unwrap();
    assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
    assert!("sha256/short".parse::<Pin>().is_err());
    let trusting = ClientTls::new(&Trust::Pins(vec![pin])).unwrap();
    // The name does not matter, and neither does the time.
    let (mut near, mut far) = ends(&trusting, "whatever.example", &server, Inner::Native);
    shake_hands(&mut near, &mut far).unwrap();

    let other = ServerTls::from_pem(cert!("renewed.pem"), cert!("renewed.key")).unwrap();
    let refused = refused(&trusting, "server", &other);
    assert_eq!(refused, TlsError::WrongPin(other.pin().unwrap()));
}

#[test]
fn a_certificate_is_replaced_while_the_server_runs() {
    let server = server_tls();
    let before = server.pin();
    server.reload(cert!("renewed.pem"), cert!("renewed.key")).unwrap();
    assert_ne!(server.pin(), before);
    let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "server", &server, Inner::Native);
    shake_hands(&mut near, &mut far).unwrap();
    // A key that is another's changes nothing.
    let after = server.pin();
    assert!(server.reload(cert!("server.pem"), cert!("renewed.key")).is_err());
    assert!(server.reload(b"nothing", cert!("renewed.key")).is_err());
    assert_eq!(server.pin(), after);
}

#[test]
fn what_is_no_tls_is_refused() {
    let mut far = End::new(Tls::server(&server_tls(), Rng::from_seed([2; 32]), EPOCH).unwrap());
    assert!(far.take(b"\x16\x03\x01\x00\x04\x02\0\0\0").is_err());
    assert!(!far.last_words().is_empty(), "an alert");
    let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "server", &server_tls(), Inner::Native);
    shake_hands(&mut near, &mut far).unwrap();
    let mut sealed = near.say(&[Bytes::from_static(b"record")]);
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    assert!(far.take(&sealed).is_err());
    assert_eq!(far.clean, 0);
}

#[test]
fn the_end_is_said_and_heard() {
    let (mut near, mut far) = ends(&roots(cert!("ca.pem")), "server", &server_tls(), Inner::Native);
    shake_hands(&mut near, &mut far).unwrap();
    let words = [near.say(&[Bytes::from_static(b"last")]), near.last_words()].concat();
    far.take(&words).unwrap();
    assert_eq!(&far.input[..far.clean], b"last");
    assert!(far.carrier.is_ended());
    assert!(near.say(&[Bytes::from_static(b"late")]).is_empty());
}

#[test]
fn a_protocol_that_nobody_speaks_is_told() {
    let ca = roots(cert!("ca.pem"));
    let mut config = ClientConfig::clone(&ca.native);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let odd = ClientTls {
        native: Arc::new(config),
        ..ca
    };
    let (mut near, mut far) = ends(&odd, "server", &server_tls(), Inner::Native);
    let error = shake_hands(&mut near, &mut far).unwrap_err();
    assert!(matches!(error, CarrierError::Tls(TlsError::Alpn)), "{error:?}");
}
