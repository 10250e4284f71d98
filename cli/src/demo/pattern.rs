//! A byte stream without end that both sides know.

/// Writes the pattern's bytes from `offset` on into `buffer`. Every byte depends on its offset, so that a
/// piece lost, doubled or moved shows. Offsets go round at the end of their range.
pub fn fill(offset: u64, buffer: &mut [u8]) {
    let (mut offset, mut rest) = (offset, buffer);
    while !rest.is_empty() {
        let word = word(offset / 8).to_le_bytes();
        let skip = (offset % 8) as usize;
        let take = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(take);
        now.copy_from_slice(&word[skip..skip + take]);
        (offset, rest) = (offset.wrapping_add(take as u64), later);
    }
}

/// Checks that what is received is the pattern.
#[derive(Debug, Default)]
pub struct PatternChecker {
    bytes: u64,
    first_wrong: Option<u64>,
}

impl PatternChecker {
    /// A checker at offset 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the stream.
    pub fn received(&mut self, mut data: &[u8]) {
        let mut expected = [0; 4096];
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(expected.len()));
            if self.first_wrong.is_none() {
                let expected = &mut expected[..now.len()];
                fill(self.bytes, expected);
                if expected != now {
                    let wrong = expected.iter().zip(now).position(|(a, b)| a != b).unwrap_or(0);
                    self.first_wrong = Some(self.bytes + wrong as u64);
                }
            }
            self.bytes += now.len() as u64;
            data = later;
        }
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset of the first byte that is not the pattern's.
    pub fn first_wrong(&self) -> Option<u64> {
        self.first_wrong
    }

    /// Whether exactly the pattern's first `sent` bytes were received.
    pub fn intact(&self, sent: u64) -> bool {
        self.first_wrong.is_none() && self.bytes == sent
    }
}

/// SplitMix64 of the index: no two neighbours resemble each other.
fn word(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        fill(0, &mut buffer);
        buffer
    }

    #[test]
    fn pieces_of_any_size_make_the_same_stream() {
        let whole = pattern(10_007);
        let mut checker = PatternChecker::new();
        let (mut offset, mut size) = (0, 1);
        while offset < whole.len() {
            let end = (offset + size).min(whole.len());
            let mut piece = vec![0; end - offset];
            fill(offset as u64, &mut piece);
            assert_eq!(piece, whole[offset..end]);
            checker.received(&piece);
            (offset, size) = (end, size * 3 % 1000 + 1);
        }
        assert!(checker.intact(10_007) && !checker.intact(10_008));
    }

    #[test]
    fn a_flipped_lost_or_doubled_byte_shows() {
        let whole = pattern(9000);
        let mut flipped = whole.clone();
        flipped[5000] ^= 1;
        let lost = [&whole[..100], &whole[101..]].concat();
        let doubled = [&whole[..4096], &whole[4090..]].concat();
        for (data, at) in [(flipped, 5000), (lost, 100), (doubled, 4096)] {
            let mut checker = PatternChecker::new();
            checker.received(&data);
            assert_eq!(checker.first_wrong(), Some(at));
            assert!(!checker.intact(9000));
        }
    }
}
