//! The sending half of a stream against flags for each byte.

use bytes::Bytes;

use sheetbend_core::stream::{Chunk, SendHalf, SendState};

/// The byte at an offset, so that data can be checked wherever it turns up.
fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

#[derive(Default)]
struct Model {
    /// Per byte: handed out, acknowledged, queued as lost.
    sent: Vec<bool>,
    acked: Vec<bool>,
    lost: Vec<bool>,
    finished: bool,
    fin_sent: bool,
    fin_acked: bool,
    fin_lost: bool,
    flights: Vec<Chunk>,
}

impl Model {
    fn prefix(&self) -> usize {
        self.acked
            .iter()
            .position(|acked| !acked)
            .unwrap_or(self.acked.len())
    }

    fn write(&mut self, half: &mut SendHalf, len: usize, max: usize, shared: bool) {
        let start = self.sent.len() as u64;
        let data: Vec<u8> = (start..start + len as u64).map(byte).collect();
        let room = half.capacity() as usize;
        let taken = if shared {
            half.write_bytes(&mut Bytes::from(data), max)
        } else {
            half.write(&data, max)
        };
        assert_eq!(taken, if self.finished { 0 } else { len.min(max).min(room) });
        let total = self.sent.len() + taken;
        self.sent.resize(total, false);
        self.acked.resize(total, false);
        self.lost.resize(total, false);
    }

    fn next_chunk(&mut self, half: &mut SendHalf, max: usize) {
        let pending = half.has_pending();
        let lost = self.lost.iter().position(|lost| *lost);
        let start = lost
            .or(self.sent.iter().position(|sent| !sent))
            .unwrap_or(self.sent.len());
        let stop = match lost {
            Some(_) => self.lost[start..]
                .iter()
                .position(|lost| !lost)
                .map_or(self.lost.len(), |n| start + n),
            None => self.sent.len(),
        };
        let end = stop.min(start + max);
        let due = self.finished && end == self.sent.len() && (!self.fin_sent || self.fin_lost);
        let fin = due && (start < end || lost.is_none());
        let chunk = half.next_chunk(max);
        if start == end && !fin {
            assert_eq!(chunk, None);
            assert!(!pending || max == 0);
            return;
        }
        let expected = Chunk {
            offset: start as u64,
            len: end - start,
            fin,
        };
        assert_eq!(chunk, Some(expected));
        assert!(pending);
        let data: Vec<u8> = half
            .pieces(expected.offset, expected.len)
            .flat_map(|piece| piece.to_bytes())
            .collect();
        assert_eq!(data, (start as u64..end as u64).map(byte).collect::<Vec<_>>());
        self.sent[start..end].fill(true);
        self.lost[start..end].fill(false);
        if fin {
            self.fin_sent = true;
            self.fin_lost = false;
        }
        self.flights.push(expected);
    }

    fn settle(&mut self, half: &mut SendHalf, chunk: Chunk, acked: bool) {
        let range = chunk.offset as usize..chunk.offset as usize + chunk.len;
        let before = self.prefix();
        if acked {
            self.acked[range.clone()].fill(true);
            self.lost[range].fill(false);
            self.fin_acked |= chunk.fin;
            self.fin_lost &= !self.fin_acked;
            let result = half.on_acked(chunk.offset, chunk.len, chunk.fin);
            assert_eq!(result.freed, (self.prefix() - before) as u64);
            assert_eq!(
                result.complete,
                self.fin_acked && self.prefix() == self.sent.len()
            );
        } else {
            for at in range {
                self.lost[at] |= !self.acked[at];
            }
            self.fin_lost |= chunk.fin && !self.fin_acked;
            half.on_lost(chunk.offset, chunk.len, chunk.fin);
        }
    }

    fn check(&self, half: &SendHalf) {
        assert_eq!(half.acked_prefix(), self.prefix() as u64);
        assert_eq!(half.written(), self.sent.len() as u64);
        assert_eq!(
            half.unsent(),
            self.sent.iter().filter(|sent| !**sent).count() as u64
        );
        assert_eq!(half.has_lost(), self.fin_lost || self.lost.contains(&true));
        let whole: Vec<u8> = half
            .pieces(0, usize::MAX)
            .flat_map(|piece| piece.data().iter().copied())
            .collect();
        assert_eq!(
            whole,
            (self.prefix() as u64..half.written())
                .map(byte)
                .collect::<Vec<_>>()
        );
        if half.buffered() == 0 {
            assert!(half.memory_bytes() < 8192, "{}", half.memory_bytes());
        }
    }
}

/// PROTOCOL 7: whatever order chunks are acknowledged and lost in, every byte gets there.
#[test]
fn any_interleaving() {
    bolero::check!()
        .with_iterations(1500)
        .with_type::<Vec<(u8, u16, u8)>>()
        .for_each(|ops| {
            let mut half = SendHalf::new(20_000);
            let mut model = Model::default();
            for &(op, size, pick) in ops {
                let size = usize::from(size);
                let chunk = model
                    .flights
                    .get(usize::from(pick) % model.flights.len().max(1))
                    .copied();
                match op % 10 {
                    0 | 1 => model.write(&mut half, size % 200, 150, op & 16 != 0),
                    2 => model.write(&mut half, size % 9000, usize::MAX, op & 16 != 0),
                    3..=5 => model.next_chunk(&mut half, size % 3000),
                    6 if pick < 8 => {
                        half.finish().unwrap();
                        model.finished = true;
                    }
                    6 => {
                        let before = half.max_data();
                        let grew = half.set_max_data(20_000 + size as u64);
                        assert_eq!(grew, half.max_data() > before);
                    }
                    // Flights stay on the list: the same chunk may be lost and acknowledged repeatedly.
                    _ => {
                        if let Some(chunk) = chunk {
                            model.settle(&mut half, chunk, op % 2 == 0);
                        }
                    }
                }
                model.check(&half);
            }
            half.finish().unwrap();
            model.finished = true;
            while half.has_pending() {
                model.next_chunk(&mut half, 2500);
            }
            for chunk in model.flights.clone() {
                model.settle(&mut half, chunk, true);
            }
            model.check(&half);
            assert_eq!(half.state(), SendState::DataAcked);
        });
}
