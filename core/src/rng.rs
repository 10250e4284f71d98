//! The core's only source of randomness: a ChaCha20 stream from a seed that the driver gives.

use std::fmt;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A deterministic, cryptographically strong generator.
///
/// The same seed gives the same numbers on every machine. A driver seeds it from the operating
/// system, the simulator from its own seed. The state is wiped on drop; it is not `Clone`, because
/// two copies would hand out the same secrets twice: use [`Rng::fork`].
pub struct Rng {
    inner: ChaCha20Rng,
}

impl Rng {
    /// The generator of `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        let seed = Zeroizing::new(seed);
        Rng {
            inner: ChaCha20Rng::from_seed(*seed),
        }
    }

    /// Fills `dest` with random bytes.
    pub fn fill(&mut self, dest: &mut [u8]) {
        self.inner.fill_bytes(dest);
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number.
    pub fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }

    /// A number in `0..n`, each as likely as any other; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Lemire's multiplication: the high half is the answer, unless the low half falls among the
        // 2^64 mod n values that would make some answers likelier.
        let unfair = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= unfair {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A number in `0.0..1.0` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A duration in `low..=high`, to the nanosecond; `low` when `high` is not above it.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        low.saturating_add(Duration::from_nanos(self.below(span.saturating_add(1))))
    }

    /// A generator of its own for one purpose. Children with different labels, and children
    /// taken one after another, are unrelated.
    pub fn fork(&mut self, label: &str) -> Rng {
        let fresh = Zeroizing::new(self.bytes::<32>());
        let mut hash = Sha256::new();
        hash.update(b"sheetbend rng fork");
        hash.update(fresh.as_slice());
        hash.update(label.as_bytes());
        Rng::from_seed(hash.finalize().into())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng { .. }")
    }
}

/// A generator that is seldom asked: a seed and a place in its stream, 40 bytes instead of the 320 of an [`Rng`].
///
/// It gives the numbers that an [`Rng`] of the same seed would.
pub(crate) struct SparseRng {
    seed: Zeroizing<[u8; 32]>,
    /// Words of the stream that were used. 2^64 of them are never used up.
    used: u64,
}

impl SparseRng {
    /// The generator of `seed`.
    pub(crate) fn from_seed(seed: [u8; 32]) -> SparseRng {
        SparseRng {
            seed: Zeroizing::new(seed),
            used: 0,
        }
    }

    /// What `draw` takes from it.
    pub(crate) fn draw<T>(&mut self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        let mut rng = Rng::from_seed(*self.seed);
        rng.inner.set_word_pos(u128::from(self.used));
        let drawn = draw(&mut rng);
        self.used = rng.inner.get_word_pos() as u64;
        drawn
    }

    /// `N` random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.draw(Rng::bytes)
    }
}

impl From<Rng> for SparseRng {
    /// What is left of a generator's stream.
    fn from(rng: Rng) -> SparseRng {
        SparseRng {
            seed: Zeroizing::new(rng.inner.get_seed()),
            used: rng.inner.get_word_pos() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_chacha20_with_a_zero_nonce() {
        // draft-agl-tls-chacha20poly1305-04 §7: the key stream of the zero key.
        let mut rng = Rng::from_seed([0; 32]);
        assert_eq!(rng.bytes::<8>(), [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn same_seed_same_numbers_and_forks_differ() {
        let mut a = Rng::from_seed([7; 32]);
        let mut b = Rng::from_seed([7; 32]);
        assert_eq!(a.fork("x").next_u64(), b.fork("x").next_u64());
        assert_ne!(a.fork("x").next_u64(), b.fork("y").next_u64());
        assert_eq!(a.next_u64(), b.next_u64());
        assert_ne!(a.fork("x").next_u64(), a.fork("x").next_u64());
        assert_eq!(format!("{a:?}"), "Rng { .. }");
    }

    #[test]
    fn a_sparse_one_gives_the_same_numbers() {
        let (mut dense, mut sparse) = (Rng::from_seed([3; 32]), SparseRng::from_seed([3; 32]));
        let long = Duration::from_secs(9);
        for _ in 0..200 {
            assert_eq!(dense.bytes::<32>(), sparse.bytes::<32>());
            assert_eq!(dense.bytes::<7>(), sparse.bytes::<7>());
            assert_eq!(dense.next_u64(), sparse.draw(Rng::next_u64));
            let drawn = sparse.draw(|rng| rng.duration(Duration::ZERO, long));
            assert_eq!(dense.duration(Duration::ZERO, long), drawn);
        }
        let mut rest = SparseRng::from(dense);
        assert_eq!(rest.bytes::<32>(), sparse.bytes::<32>());
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut rng = Rng::from_seed([1; 32]);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        assert!((0..100).all(|_| rng.below(u64::MAX) < u64::MAX));
        let mut seen = [0_u32; 6];
        for _ in 0..60_000 {
            seen[rng.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
    }

    #[test]
    fn durations_and_units() {
        let mut rng = Rng::from_seed([2; 32]);
        let (low, high) = (Duration::from_millis(10), Duration::from_millis(30));
        for _ in 0..1000 {
            assert!((low..=high).contains(&rng.duration(low, high)));
            assert!((0.0..1.0).contains(&rng.unit()));
        }
        assert_eq!(rng.duration(high, low), high);
        assert_eq!(rng.duration(Duration::MAX, Duration::MAX), Duration::MAX);
        let _ = rng.duration(Duration::ZERO, Duration::MAX);
    }
}
