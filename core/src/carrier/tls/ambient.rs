//! What rustls asks of its surroundings, randomness and the time, given for the length of one call.
//!
//! rustls takes both from objects that live as long as its configuration. Ours look here, where the carrier
//! puts its own generator and the caller's time before each call: so a connection draws from its own seed
//! alone, on a simulated clock as well as on a real one.

use std::cell::RefCell;
use std::time::Duration;

use rustls::crypto::{GetRandomFailed, SecureRandom};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::rng::Rng;

struct Ambient {
    rng: Rng,
    unix: Duration,
}

thread_local! {
    static AMBIENT: RefCell<Option<Ambient>> = const { RefCell::new(None) };
}

/// Calls `work`, during which randomness comes from `rng` and the time since 1970 is `unix`.
pub(super) fn with<T>(rng: &mut Rng, unix: Duration, work: impl FnOnce() -> T) -> T {
    let own = std::mem::replace(rng, Rng::from_seed([0; 32]));
    let outer = AMBIENT.replace(Some(Ambient { rng: own, unix }));
    let result = work();
    if let Some(ambient) = AMBIENT.replace(outer) {
        *rng = ambient.rng;
    }
    result
}

/// Random bytes of the connection that is at work; `None` outside of [`with`].
pub(super) fn fill(bytes: &mut [u8]) -> Option<()> {
    AMBIENT.with_borrow_mut(|ambient| ambient.as_mut().map(|ambient| ambient.rng.fill(bytes)))
}

/// [`SecureRandom`] of the connection that is at work.
#[derive(Debug)]
pub(super) struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes).ok_or(GetRandomFailed)
    }
}

/// [`TimeProvider`] of the connection that is at work.
#[derive(Debug)]
pub(super) struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        AMBIENT.with_borrow(|ambient| {
            ambient
                .as_ref()
                .map(|ambient| UnixTime::since_unix_epoch(ambient.unix))
        })
    }
}
