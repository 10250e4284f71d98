//! Keys of the session's tables. Each is generation-checked: a key of something that ended names nothing.

use std::fmt;

macro_rules! table_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            pub(super) slot: u32,
            pub(super) generation: u32,
        }

        impl $name {
            /// The slot in the table: small and dense, for tables that a driver keeps beside this one.
            /// A slot is used again after its owner ended.
            pub fn index(self) -> usize {
                self.slot as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.slot, self.generation)
            }
        }
    };
}

table_key! {
    /// Names a path of one session, from its attachment until its end.
    PathKey
}
table_key! {
    /// Names a stream of one session, until both its halves are settled and released.
    StreamKey
}

/// A multiplicative hasher with a fixed seed, for tables keyed by stream ids: those are bounded by
/// the credit that this end gave, and no order is ever taken from the table.
#[derive(Default, Clone)]
pub(super) struct IdHasher(u64);

impl std::hash::Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

pub(super) type IdMap<V> = std::collections::HashMap<u64, V, std::hash::BuildHasherDefault<IdHasher>>;
