//! A fuzzer's bytes, read as decisions.

use sheetbend_core::rng::Rng;

/// Reads decisions off the front of some bytes. When they have run out every answer is zero, so that a
/// target must look at [`Input::is_empty`] to come to an end.
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// Decisions made by these bytes.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes }
    }

    /// Whether all bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((&first, rest)) => {
                self.bytes = rest;
                first
            }
            None => 0,
        }
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number below `bound`, of one byte where that is enough, otherwise of two.
    pub fn below(&mut self, bound: usize) -> usize {
        let value = if bound <= 256 {
            usize::from(self.byte())
        } else {
            usize::from(self.u16())
        };
        value % bound.max(1)
    }

    /// A number below `bound`, most often a small one: sizes are.
    pub fn size(&mut self, bound: usize) -> usize {
        let scale = self.byte();
        let value = usize::from(self.byte()) << (scale % 12);
        (value + usize::from(scale)) % bound.max(1)
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The next `len` bytes, or what is left of them.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

/// Bytes for a target from a seed, where no fuzzer makes them.
pub fn seeded(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_seed(wide(seed)).fill(&mut bytes);
    bytes
}

/// A seed for a machine, of a small one.
pub fn wide(seed: u64) -> [u8; 32] {
    let mut bytes = [0x5b; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}
