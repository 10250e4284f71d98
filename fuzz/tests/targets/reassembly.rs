//! The reassembler against one that keeps an `Option<u8>` for each offset.

use bytes::Bytes;

use sheetbend_core::stream::{Read, RecvHalf, Source};

const LIMIT: usize = 40_000;

/// What has arrived, byte by byte; the first to arrive stays.
struct Model {
    bytes: Vec<Option<u8>>,
    read: usize,
    final_size: Option<usize>,
    highest: usize,
}

impl Model {
    fn contiguous(&self) -> usize {
        self.read
            + self.bytes[self.read..]
                .iter()
                .position(|b| b.is_none())
                .unwrap_or(LIMIT - self.read)
    }

    fn insert(&mut self, half: &mut RecvHalf, offset: usize, data: &[u8], fin: bool, source: Source<'_>) {
        let end = offset + data.len();
        let legal = end <= LIMIT
            && self
                .final_size
                .is_none_or(|size| end <= size && (!fin || end == size))
            && !(fin && end < self.highest);
        let result = half.insert(offset as u64, data, fin, source);
        assert_eq!(result.is_ok(), legal, "{result:?}");
        let Ok(inserted) = result else { return };
        let before = self.contiguous();
        let mut new = fin && self.final_size.is_none();
        for (place, byte) in self.bytes[offset..end].iter_mut().zip(data) {
            new |= place.is_none();
            place.get_or_insert(*byte);
        }
        assert_eq!(inserted.growth, end.saturating_sub(self.highest) as u64);
        assert_eq!(inserted.duplicate, !new);
        let ended = fin && self.final_size.is_none() && self.contiguous() == end;
        assert_eq!(inserted.readable, self.contiguous() > before || ended);
        self.highest = self.highest.max(end);
        if fin {
            self.final_size = Some(end);
        }
    }

    fn took(&mut self, data: &[u8]) {
        assert!(!data.is_empty());
        for byte in data {
            assert_eq!(Some(*byte), self.bytes[self.read]);
            self.read += 1;
        }
    }

    fn took_nothing(&self, finished: bool) {
        assert_eq!(self.contiguous(), self.read, "there was something to read");
        assert_eq!(finished, self.final_size == Some(self.read));
    }

    fn check(&self, half: &RecvHalf) {
        assert_eq!(half.contiguous_end(), self.contiguous() as u64);
        assert_eq!(half.readable(), (self.contiguous() - self.read) as u64);
        assert_eq!(half.is_complete(), self.final_size == Some(self.contiguous()));
        assert_eq!(
            half.has_gaps(),
            self.bytes[self.contiguous()..].iter().any(|b| b.is_some())
        );
        assert_eq!(half.peek().is_empty(), half.readable() == 0);
        assert!(half.memory_bytes() <= 6 * LIMIT + 65_536);
        if half.readable() == 0 && !half.has_gaps() {
            assert_eq!(half.pinned(), 0);
        }
    }
}

/// PROTOCOL 7: frames in any order, overlapping and repeated, read as one stream.
#[test]
fn any_arrival_order() {
    let blocks: Vec<Bytes> = (0..8_u8)
        .map(|n| (0..12_000).map(|i: u32| (i * 7) as u8 ^ n).collect())
        .collect();
    bolero::check!()
        .with_iterations(1000)
        .with_type::<Vec<(u8, u16, u16)>>()
        .for_each(|ops| {
            let mut half = RecvHalf::new(LIMIT as u64, LIMIT as u64);
            let mut model = Model {
                bytes: vec![None; LIMIT],
                read: 0,
                final_size: None,
                highest: 0,
            };
            for &(op, place, size) in ops {
                let (place, size) = (usize::from(place), usize::from(size));
                let block = &blocks[usize::from(op >> 5)];
                let near = model.contiguous();
                let source = match op & 16 {
                    0 => Source::Borrowed,
                    _ => Source::Block {
                        block,
                        capacity: 12_000,
                    },
                };
                let from = place % 100;
                let mut buffer = [0; 3000];
                match op % 10 {
                    0 | 1 => model.insert(&mut half, near, &block[from..from + size % 300], false, source),
                    2 => model.insert(&mut half, near, &block[from..from + size % 9000], false, source),
                    3 => model.insert(
                        &mut half,
                        place % LIMIT,
                        &block[from..from + size % 9000],
                        false,
                        source,
                    ),
                    4 => model.insert(
                        &mut half,
                        near + place % 500,
                        &block[from..from + size % 100],
                        false,
                        source,
                    ),
                    5 => model.insert(
                        &mut half,
                        near.saturating_sub(place % 900),
                        &block[from..from + size % 5000],
                        size < 4000,
                        source,
                    ),
                    6 | 7 => match half.read(size % 6000 + 1) {
                        Read::Data(data) => {
                            assert!(data.len() <= size % 6000 + 1);
                            model.took(&data);
                        }
                        other => model.took_nothing(other == Read::Finished),
                    },
                    8 => {
                        let peeked = half.peek_copy(&mut buffer);
                        let copy = buffer;
                        match half.read_into(&mut buffer) {
                            Read::Data(n) => {
                                assert_eq!((peeked, &copy[..n]), (n, &buffer[..n]));
                                model.took(&buffer[..n]);
                            }
                            other => model.took_nothing(other == Read::Finished),
                        }
                    }
                    _ => {
                        let available = model.contiguous() - model.read;
                        assert_eq!(half.skip(size), size.min(available));
                        model.read += size.min(available);
                    }
                }
                model.check(&half);
            }
        });
}
