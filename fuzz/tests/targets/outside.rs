//! What the crates above the core parse: addresses, and the bytes of a file transfer.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bolero::check;
use sheetbend_cli::transfer::wire::{Offer, Reply};
use sheetbend_runtime::{Address, MAX_ADDRESS_LEN};

/// An address that parses is written as one that parses to the same.
#[test]
fn addresses() {
    check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        match text.parse::<Address>() {
            Ok(address) => {
                assert!(text.len() <= MAX_ADDRESS_LEN);
                assert_eq!(address.to_string().parse().as_ref(), Ok(&address), "{text:?}");
                assert!(text.starts_with(address.transport()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if let Ok(address) = text.parse::<sheetbend_cli::address::Address>() {
            let again: sheetbend_cli::address::Address = address.to_string().parse().expect("as written");
            assert_eq!(again, address);
        }
    });
}

/// The future of a reader over bytes that are all there: it never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a slice is never pending"),
    }
}

/// What a transfer's reader accepts is what its writer would send.
#[test]
fn transfers() {
    check!().for_each(|bytes: &[u8]| {
        let mut rest = bytes;
        if let Ok(offer) = now(Offer::read(&mut rest)) {
            assert_eq!(offer.encode(), bytes[..bytes.len() - rest.len()]);
        }
        let mut rest = bytes;
        if let Ok(reply) = now(Reply::read(&mut rest)) {
            let again = now(Reply::read(&mut &reply.encode()[..])).expect("as written");
            match (again, reply) {
                // What is no text grows as it is made one, and is cut where it is written.
                (Reply::Refused(again), Reply::Refused(reply)) => {
                    assert_eq!(again.reason, reply.reason);
                    assert!(reply.message.starts_with(&again.message));
                }
                (again, reply) => assert_eq!(again, reply),
            }
        }
    });
}
