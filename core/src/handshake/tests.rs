//! PROTOCOL 5 and 6: bodies, parameters, key schedule, proofs.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::reader::put_varint;
use super::vectors as v;
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

pub(super) fn body(encode: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn params(edit: impl Fn(&mut Params)) -> Params {
    let mut params = Params {
        floor: Security::Encrypted,
        ..Params::default()
    };
    edit(&mut params);
    params
}

struct Pair {
    hello: Hello,
    welcome: Welcome,
    client: SessionKeys,
    server: SessionKeys,
}

fn pair() -> Pair {
    let client_secret = EphemeralSecret::from_seed([0x11; 32]);
    let server_secret = EphemeralSecret::from_seed([0x22; 32]);
    let ours = params(|p| p.service = "demo".into());
    let hello = Hello::new(0, [0x33; 16], client_secret.share(), ours).unwrap();
    let theirs = params(|p| {
        p.max_record = 32_768;
        p.resume_timeout = Duration::from_secs(60);
    });
    let routing = Routing::new(&[1, 2]).unwrap();
    let id = SessionId([0x44; 16]);
    let mut welcome = Welcome::new(0, VERSION, id, routing, server_secret.share(), theirs).unwrap();
    let server = SessionKeys::server(&server_secret, &hello, &welcome).unwrap();
    server.sign_welcome(&mut welcome);
    let client = SessionKeys::client(&client_secret, &hello, &welcome).unwrap();
    Pair {
        hello,
        welcome,
        client,
        server,
    }
}

fn join(keys: &SessionKeys, exporter: Option<&Exporter>) -> Join {
    let mut join = Join {
        session_id: SessionId([0x44; 16]),
        routing: Routing::new(&[1, 2]).unwrap(),
        path_id: 8,
        nonce: [0x55; 16],
        bound: exporter.is_some(),
        floor: Security::Encrypted,
        in_flight: 262_144,
        live: [5, 7].into_iter().collect(),
        proof: [0; 32],
    };
    join.proof = keys.join_proof(&join, exporter).unwrap();
    join
}

fn joined(keys: &SessionKeys, join: &Join) -> Joined {
    let counts = [
        PathCount {
            path: 0,
            lane: 0,
            count: 3,
        },
        PathCount {
            path: 300,
            lane: 1,
            count: 1 << 20,
        },
    ];
    let mut joined = Joined {
        path_id: 8,
        nonce: [0x66; 16],
        in_flight: 131_072,
        counts: Counts::from_slice(&counts),
        proof: [0; 32],
    };
    joined.proof = keys.joined_proof(&join.digest(), &joined);
    joined
}

fn confirm(path_id: u64, count: u64) -> Confirm {
    let counts = Counts::from_slice(&[PathCount {
        path: 0,
        lane: 0,
        count,
    }]);
    Confirm {
        path_id,
        counts,
        proof: [0; 32],
    }
}

#[test]
fn vectors() {
    // PROTOCOL 5.8.
    assert_eq!(
        hex(&EphemeralSecret::from_seed([0x11; 32]).share()),
        v::CLIENT_SHARE
    );
    assert_eq!(
        hex(&EphemeralSecret::from_seed([0x22; 32]).share()),
        v::SERVER_SHARE
    );
    let Pair {
        hello,
        welcome,
        client,
        server,
    } = pair();
    assert_eq!(hex(&body(|out| hello.encode(out))), v::HELLO);
    assert_eq!(hex(hello.transcript()), v::HELLO_T);
    assert_eq!(hex(welcome.transcript()), v::WELCOME_T);
    assert_eq!(hex(server.transcript_hash()), v::TH);
    assert_eq!(hex(&welcome.mac), v::WELCOME_MAC_0);
    assert_eq!(hex(&body(|out| welcome.encode(out))), v::WELCOME);
    assert_eq!(hex(&server.welcome_mac(7)), v::WELCOME_MAC_7);
    assert_eq!(hex(&*client.seal_client()), v::KEY_SEAL_CLIENT);
    assert_eq!(hex(&*client.seal_server()), v::KEY_SEAL_SERVER);

    let mut first = confirm(0, 1);
    first.proof = client.confirm_hello_proof(&first);
    assert_eq!(hex(&first.proof), v::CONFIRM_HELLO_PROOF);
    assert_eq!(hex(&body(|out| first.encode(out))), v::CONFIRM_HELLO);
    assert_eq!(server.verify_confirm_hello(&first), Ok(()));

    let exporter = [0x77; 32];
    let bound = join(&client, Some(&exporter));
    assert_eq!(hex(&body(|out| bound.encode(out))), v::JOIN);
    assert_eq!(hex(&body(|out| join(&client, None).encode(out))), v::JOIN_UNBOUND);
    assert_eq!(hex(&bound.digest()), v::JOIN_DIGEST);
    assert_eq!(server.verify_join(&bound, Some(&exporter)), Ok(()));
    let answer = joined(&server, &bound);
    assert_eq!(hex(&body(|out| answer.encode(out))), v::JOINED);
    assert_eq!(hex(&answer.digest()), v::JOINED_DIGEST);
    assert_eq!(client.verify_joined(&bound.digest(), &answer), Ok(()));
    let mut second = confirm(8, 2);
    second.proof = client.confirm_join_proof(&bound.digest(), &answer.digest(), &second);
    assert_eq!(hex(&body(|out| second.encode(out))), v::CONFIRM_JOIN);
    assert_eq!(
        server.verify_confirm_join(&bound.digest(), &answer.digest(), &second),
        Ok(())
    );

    let reject = Reject::new(RejectCode::REDIRECT, "moved").with_address("b.example:443");
    assert_eq!(hex(&body(|out| reject.encode(out))), v::REJECT);
}

/// The intermediate values of the key schedule, from the primitives.
#[test]
fn vectors_of_the_schedule() {
    use hkdf::Hkdf;
    use hmac::{Hmac, KeyInit, Mac};

    let (hello_t, welcome_t) = (unhex(v::HELLO_T), unhex(v::WELCOME_T));
    let mut input = b"sheetbend/1 transcript".to_vec();
    for part in [&hello_t, &welcome_t] {
        input.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
        input.extend_from_slice(part);
    }
    let th = Sha256::digest(&input);
    assert_eq!(hex(&th), v::TH);
    let share: [u8; 32] = unhex(v::SERVER_SHARE).try_into().unwrap();
    let dh = x25519_dalek::x25519([0x11; 32], share);
    assert_eq!(hex(&dh), v::DH);
    let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&th), &dh);
    assert_eq!(hex(&prk), v::PRK);
    for (label, want) in [
        ("welcome", v::KEY_WELCOME),
        ("confirm", v::KEY_CONFIRM),
        ("join", v::KEY_JOIN),
        ("joined", v::KEY_JOINED),
        ("seal client", v::KEY_SEAL_CLIENT),
        ("seal server", v::KEY_SEAL_SERVER),
    ] {
        let mut key = [0; 32];
        hkdf.expand(format!("sheetbend/1 {label}").as_bytes(), &mut key)
            .unwrap();
        assert_eq!(hex(&key), want, "{label}");
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&unhex(v::KEY_WELCOME)).unwrap();
    mac.update(&th);
    mac.update(&[0; 8]);
    assert_eq!(hex(&mac.finalize().into_bytes()), v::WELCOME_MAC_0);
}

#[test]
fn vectors_decode() {
    let Pair {
        hello,
        welcome,
        client,
        ..
    } = pair();
    assert_eq!(Hello::decode(&unhex(v::HELLO)), Ok(hello));
    assert_eq!(Welcome::decode(&unhex(v::WELCOME)), Ok(welcome));
    assert_eq!(
        Join::decode(&unhex(v::JOIN)),
        Ok(join(&client, Some(&[0x77; 32])))
    );
    let answer = joined(&client, &join(&client, Some(&[0x77; 32])));
    assert_eq!(Joined::decode(&unhex(v::JOINED)), Ok(answer));
    assert_eq!(
        Reject::decode(&unhex(v::REJECT)).unwrap().code,
        RejectCode::REDIRECT
    );
}

/// Every prefix and every extension of a valid body is an error, never a panic.
#[test]
fn bodies_are_exact() {
    fn check<T: std::fmt::Debug>(text: &str, open_end: bool, decode: fn(&[u8]) -> Result<T, HandshakeError>) {
        let bytes = unhex(text);
        decode(&bytes).unwrap();
        for cut in 0..bytes.len() {
            // A HELLO that ends between two parameters is whole.
            let whole = open_end && decode(&bytes[..cut]).is_ok();
            assert!(whole || decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode(&longer).is_err());
        longer.resize(MAX_BODY + 1, 0);
        assert!(matches!(decode(&longer), Err(HandshakeError::TooLong { .. })));
    }
    check(v::HELLO, true, Hello::decode);
    check(v::WELCOME, false, Welcome::decode);
    check(v::JOIN, false, Join::decode);
    check(v::JOINED, false, Joined::decode);
    check(v::CONFIRM_JOIN, false, Confirm::decode);
    check(v::REJECT, false, Reject::decode);
}

/// A change of any one bit of any message breaks its proof (or its parsing). PROTOCOL 5.3, 6.2.
#[test]
fn every_bit_is_covered() {
    let Pair {
        hello,
        client,
        server,
        ..
    } = pair();
    let secret = EphemeralSecret::from_seed([0x11; 32]);
    let flips = |text: &str| {
        let bytes = unhex(text);
        (0..bytes.len() * 8).map(move |bit| {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
    };
    for bytes in flips(v::WELCOME).step_by(3) {
        let accepted = Welcome::decode(&bytes).and_then(|w| SessionKeys::client(&secret, &hello, &w));
        assert!(accepted.is_err(), "{}", hex(&bytes));
    }
    let exporter = [0x77; 32];
    let original = join(&client, Some(&exporter));
    for bytes in flips(v::JOIN) {
        let accepted = Join::decode(&bytes).and_then(|j| server.verify_join(&j, Some(&exporter)));
        assert!(accepted.is_err(), "{}", hex(&bytes));
    }
    for bytes in flips(v::JOINED) {
        let accepted = Joined::decode(&bytes).and_then(|j| client.verify_joined(&original.digest(), &j));
        assert!(accepted.is_err(), "{}", hex(&bytes));
    }
    let answer = joined(&server, &original);
    for bytes in flips(v::CONFIRM_JOIN) {
        let accepted = Confirm::decode(&bytes)
            .and_then(|c| server.verify_confirm_join(&original.digest(), &answer.digest(), &c));
        assert!(accepted.is_err(), "{}", hex(&bytes));
    }
    for bytes in flips(v::CONFIRM_HELLO) {
        let accepted = Confirm::decode(&bytes).and_then(|c| server.verify_confirm_hello(&c));
        assert!(accepted.is_err(), "{}", hex(&bytes));
    }
}

/// A HELLO changed on the way: both ends have other transcripts. PROTOCOL 5.3.
#[test]
fn a_changed_hello_fails_at_welcome() {
    let Pair { hello, .. } = pair();
    let secret = EphemeralSecret::from_seed([0x11; 32]);
    let server_secret = EphemeralSecret::from_seed([0x22; 32]);
    let lowered = Hello::new(0, *hello.nonce(), *hello.share(), Params::default()).unwrap();
    let id = SessionId::default();
    let share = server_secret.share();
    let mut welcome = Welcome::new(0, 1, id, Routing::default(), share, Params::default()).unwrap();
    SessionKeys::server(&server_secret, &lowered, &welcome)
        .unwrap()
        .sign_welcome(&mut welcome);
    let answer = SessionKeys::client(&secret, &hello, &welcome);
    assert_eq!(answer.unwrap_err(), HandshakeError::BadProof);
}

/// Reflection, other purpose, other session, other path. NUMBERS: resume attacks.
#[test]
fn proofs_do_not_travel() {
    let Pair {
        hello,
        welcome,
        client,
        server,
    } = pair();
    let exporter = [0x77; 32];
    let bound = join(&client, Some(&exporter));
    // Another TLS connection.
    assert_eq!(
        server.verify_join(&bound, Some(&[0x78; 32])),
        Err(HandshakeError::BadProof)
    );
    assert_eq!(server.verify_join(&bound, None), Err(HandshakeError::NoExporter));
    // Stripping the binding.
    let stripped = Join {
        bound: false,
        ..bound.clone()
    };
    assert_eq!(server.verify_join(&stripped, None), Err(HandshakeError::BadProof));
    assert_eq!(
        server.verify_join(&join(&client, None), Some(&exporter)),
        Err(HandshakeError::Unbound)
    );
    assert_eq!(server.verify_join(&join(&client, None), None), Ok(()));
    assert_eq!(HandshakeError::Unbound.reject_code(), RejectCode::UNBOUND);
    // Another session's keys.
    let other_secret = EphemeralSecret::from_seed([0x12; 32]);
    let other_hello = Hello::new(0, [0x33; 16], other_secret.share(), Params::default()).unwrap();
    let other = SessionKeys::server(&EphemeralSecret::from_seed([0x22; 32]), &other_hello, &welcome).unwrap();
    assert_eq!(
        other.verify_join(&bound, Some(&exporter)),
        Err(HandshakeError::BadProof)
    );
    // A CONFIRM for HELLO is none for JOIN, and the other way round.
    let answer = joined(&server, &bound);
    let mut for_hello = confirm(8, 2);
    for_hello.proof = client.confirm_hello_proof(&for_hello);
    let as_join = server.verify_confirm_join(&bound.digest(), &answer.digest(), &for_hello);
    assert_eq!(as_join, Err(HandshakeError::BadProof));
    // A JOINED for an earlier JOIN.
    let again = Join {
        nonce: [0x56; 16],
        ..bound.clone()
    };
    assert_eq!(
        client.verify_joined(&again.digest(), &answer),
        Err(HandshakeError::BadProof)
    );
    // WELCOME on another path needs its own MAC, and the same transcript.
    let mut repeated = welcome.on_path(7);
    assert_eq!(
        client.verify_repeated(&welcome.digest(), &repeated),
        Err(HandshakeError::BadProof)
    );
    server.sign_welcome(&mut repeated);
    assert_eq!(client.verify_repeated(&welcome.digest(), &repeated), Ok(()));
    let id = SessionId([0x45; 16]);
    let mut forged = Welcome::new(7, 1, id, Routing::default(), *welcome.share(), Params::default()).unwrap();
    forged.mac = repeated.mac;
    assert_eq!(
        client.verify_repeated(&welcome.digest(), &forged),
        Err(HandshakeError::BadProof)
    );
    assert_eq!(hello.on_path(7).transcript(), hello.transcript());
}

#[test]
fn weak_shares_are_refused() {
    // RFC 7748 §6.1: points of small order, of order 1, 2, 4 and 8.
    let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let mut one = [0; 32];
    one[0] = 1;
    let Pair { welcome, .. } = pair();
    let secret = EphemeralSecret::from_seed([0x22; 32]);
    for share in [[0; 32], one, unhex(order_8).try_into().unwrap()] {
        let hello = Hello::new(0, [0; 16], share, Params::default()).unwrap();
        let answer = SessionKeys::server(&secret, &hello, &welcome);
        assert_eq!(answer.unwrap_err(), HandshakeError::WeakShare);
    }
}

#[test]
fn the_version_must_have_been_offered() {
    let Pair { hello, .. } = pair();
    let secret = EphemeralSecret::from_seed([0x11; 32]);
    let welcome = Welcome::new(
        0,
        2,
        SessionId::default(),
        Routing::default(),
        [9; 32],
        Params::default(),
    )
    .unwrap();
    let answer = SessionKeys::client(&secret, &hello, &welcome);
    assert_eq!(
        answer.unwrap_err(),
        HandshakeError::VersionNotOffered { version: 2 }
    );
}

#[test]
fn nothing_secret_is_printed() {
    let Pair { client, .. } = pair();
    let secret = EphemeralSecret::from_seed([0x11; 32]);
    assert_eq!(
        format!("{client:?} {secret:?}"),
        "SessionKeys { .. } EphemeralSecret { .. }"
    );
    let params = Params {
        token: b"hunter2".to_vec(),
        ..Params::default()
    };
    let hello = Hello::new(0, [0; 16], [1; 32], params).unwrap();
    let printed = format!("{hello:?}");
    assert!(printed.contains("<7 bytes>"), "{printed}");
    assert!(
        !printed.contains("hunter2") && !printed.contains("104, 117"),
        "{printed}"
    );
}

#[test]
fn long_reject_texts_are_cut_at_a_character() {
    let reject = Reject::new(RejectCode::BUSY, "é".repeat(200)).with_address("a".repeat(257));
    let decoded = Reject::decode(&body(|out| reject.encode(out))).unwrap();
    assert_eq!(decoded.detail, "é".repeat(128));
    assert_eq!(decoded.address, "");
    assert_eq!(
        format!("{} {:?}", decoded.code, RejectCode::from(77)),
        "BUSY 0x4d"
    );
}

#[test]
fn lists_are_bounded_before_they_are_reserved() {
    let mut bytes = body(|out| put_varint(out, 3));
    put_varint(&mut bytes, u64::MAX);
    let too_many = |field, max| HandshakeError::TooMany {
        field,
        count: u64::MAX,
        max,
    };
    assert_eq!(Confirm::decode(&bytes), Err(too_many("counts", 64)));
    assert_eq!(Hello::decode(&bytes).unwrap_err(), too_many("versions", 16));
    assert_eq!(
        Hello::decode(&[0, 0]).unwrap_err(),
        HandshakeError::OutOfRange {
            field: "version count",
            value: 0,
            min: 1,
            max: 16
        }
    );
}
