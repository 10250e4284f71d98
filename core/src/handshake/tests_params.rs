//! PROTOCOL 5.5: parameters.

use std::time::Duration;

use super::params::{MAX_CREDIT, MAX_RESUME_TIMEOUT};
use super::reader::{put_bytes, put_varint};
use super::tests::body;
use super::*;

fn decode_params(build: impl Fn(&mut Vec<u8>)) -> Result<Params, HandshakeError> {
    Params::decode(&body(build))
}

fn put_param(out: &mut Vec<u8>, id: u64, values: &[u64]) {
    put_varint(out, id);
    put_bytes(
        out,
        &body(|value| values.iter().for_each(|number| put_varint(value, *number))),
    );
}

/// PROTOCOL 5.5.
#[test]
fn params_by_the_book() {
    assert_eq!(decode_params(|_| ()), Ok(Params::default()));
    // Unknown ones are skipped, even twice.
    let unknown = decode_params(|out| {
        put_param(out, 99, &[1]);
        put_param(out, 99, &[2]);
        put_param(out, u64::MAX, &[]);
    });
    assert_eq!(unknown, Ok(Params::default()));
    let twice = decode_params(|out| {
        put_param(out, 3, &[1]);
        put_param(out, 3, &[1]);
    });
    assert_eq!(twice, Err(HandshakeError::DuplicateParam { id: 3 }));
    let trailing = decode_params(|out| put_param(out, 3, &[1, 1]));
    assert_eq!(
        trailing,
        Err(HandshakeError::TrailingBytes {
            message: "lz4",
            bytes: 1
        })
    );
    let short = decode_params(|out| put_param(out, 8, &[1; 7]));
    assert_eq!(short, Err(HandshakeError::Truncated { field: "max_data" }));
    let text = decode_params(|out| {
        put_varint(out, 14);
        put_bytes(out, &[b'a', 0xff]);
    });
    assert_eq!(
        text,
        Err(HandshakeError::NotUtf8 {
            field: "service",
            valid_up_to: 1
        })
    );
}

#[test]
fn params_have_ranges() {
    let week_ms = u64::try_from(MAX_RESUME_TIMEOUT.as_millis()).unwrap();
    for (id, good, bad) in [
        (
            1,
            &[1200, 65_536, (1 << 24) - 1][..],
            &[0, 1199, 1 << 24, u64::MAX][..],
        ),
        (2, &[0, 1], &[2, u64::MAX]),
        (3, &[0, 1], &[2]),
        (4, &[0, week_ms], &[week_ms + 1, u64::MAX]),
        (5, &[0, 100, 3_600_000], &[1, 99, 3_600_001, u64::MAX]),
        (6, &[0, 10_000_000], &[10_000_001, u64::MAX]),
        (7, &[1, MAX_CREDIT], &[0, MAX_CREDIT + 1, u64::MAX]),
        (11, &[0, 1, 2], &[3, u64::MAX]),
        (12, &[0, 1 << 40], &[(1 << 40) + 1]),
        (13, &[1200, (1 << 24) - 1], &[0, 1199, 1 << 24]),
    ] {
        for value in good {
            let decoded = decode_params(|out| put_param(out, id, &[*value]));
            assert!(
                decoded.as_ref().is_ok_and(|p| p.check().is_ok()),
                "{id} {value}: {decoded:?}"
            );
        }
        for value in bad {
            let decoded = decode_params(|out| put_param(out, id, &[*value]));
            let Err(HandshakeError::Param(error)) = decoded else {
                panic!("{id} {value}: {decoded:?}")
            };
            assert_eq!(error.value, *value);
        }
    }
    for (id, count, max) in [(8, 8, MAX_CREDIT), (9, 8, MAX_CREDIT), (10, 24, 1 << 40)] {
        assert!(decode_params(|out| put_param(out, id, &vec![max; count])).is_ok());
        assert!(decode_params(|out| put_param(out, id, &vec![max + 1; count])).is_err());
    }
    let long = Params {
        token: vec![0; 4097],
        ..Params::default()
    };
    let error = Hello::new(0, [0; 16], [0; 32], long).unwrap_err();
    assert_eq!(error.to_string(), "parameter token is 4097, outside 0..=4096");
}

/// The largest HELLO that can be built fits.
#[test]
fn the_largest_hello_fits() {
    let params = Params {
        max_data: [MAX_CREDIT; 8],
        max_stream_data: [MAX_CREDIT; 8],
        max_streams: [StreamLimits {
            bi: 1 << 40,
            uni: 1 << 40,
            unordered: 1 << 40,
        }; 8],
        service: "s".repeat(255),
        token: vec![7; 4096],
        crc: Some(false),
        ..Params::default()
    };
    let hello = Hello::new(u64::MAX, [1; 16], [2; 32], params).unwrap();
    let bytes = body(|out| hello.encode(out));
    assert!(bytes.len() < MAX_BODY);
    assert_eq!(Hello::decode(&bytes), Ok(hello));
}

#[test]
fn agreement() {
    let a = Params {
        heartbeat: Duration::ZERO,
        lz4: true,
        ..Params::default()
    };
    let b = Params {
        resume_timeout: Duration::from_secs(9),
        floor: Security::Local,
        ..Params::default()
    };
    let want = Agreed {
        resume_timeout: Duration::from_secs(9),
        heartbeat: Duration::from_secs(5),
        lz4: false,
        floor: Security::Local,
    };
    assert_eq!(a.agree(&b), want);
    assert_eq!(b.agree(&a), want);
    assert!(
        a.wants_crc(Security::Plain) && a.wants_crc(Security::Local) && !a.wants_crc(Security::Encrypted)
    );
    assert!(
        !Params {
            crc: Some(false),
            ..Params::default()
        }
        .wants_crc(Security::Plain)
    );
}

/// Every set of parameters in range comes back as it was.
#[test]
fn params_round_trip() {
    bolero::check!().with_type::<[u64; 12]>().for_each(|n| {
        let params = Params {
            max_record: 1200 + (n[0] % 60_000) as u32,
            crc: [None, Some(false), Some(true)][(n[1] % 3) as usize],
            lz4: n[1] % 2 == 0,
            resume_timeout: Duration::from_millis(n[2] % 604_800_001),
            heartbeat: Duration::from_millis(100 + n[3] % 3_000_000),
            max_ack_delay: Duration::from_micros(n[4] % 10_000_001),
            in_flight: 1 + n[5] % MAX_CREDIT,
            max_data: [n[6] % MAX_CREDIT; 8],
            max_stream_data: [n[7] % MAX_CREDIT; 8],
            max_streams: [StreamLimits {
                bi: n[8] >> 24,
                uni: n[9] >> 30,
                unordered: n[10] >> 40,
            }; 8],
            floor: Security::from_value(n[11] % 3).unwrap(),
            max_message: n[11] >> 24,
            max_datagram: 1200 + (n[10] % 60_000) as u32,
            service: "x".repeat((n[9] % 256) as usize),
            token: vec![n[8] as u8; (n[7] % 4097) as usize],
        };
        assert_eq!(params.check(), Ok(()));
        assert_eq!(Params::decode(&body(|out| params.encode(out))), Ok(params));
    });
}
