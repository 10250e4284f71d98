//! What links carried, in intervals that grow with the run: memory is bounded, whatever its length.

use super::record::Drops;
use crate::net::Drop;

/// The shortest interval, in nanoseconds.
const FIRST_WIDTH: u64 = 1_000_000;
/// Intervals in which something happened, of one link, before all intervals are made twice as long.
const MAX_BINS: usize = 4096;

/// One interval of one link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bin {
    /// Its number: it begins at this many widths.
    pub(crate) index: u64,
    pub(crate) packets: u32,
    pub(crate) bytes: u64,
    pub(crate) carried: u64,
    pub(crate) drops: Drops,
}

/// The traffic of all links.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) width: u64,
    /// By the links' numbers.
    pub(crate) links: Vec<Vec<Bin>>,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            width: FIRST_WIDTH,
            links: Vec::new(),
        }
    }
}

impl Traffic {
    fn bin(&mut self, link: u32, at: u64) -> &mut Bin {
        let link = link as usize;
        if link >= self.links.len() {
            self.links.resize_with(link + 1, Vec::new);
        }
        if self.links[link].len() >= MAX_BINS {
            self.widen();
        }
        let index = at / self.width;
        let bins = &mut self.links[link];
        if bins.last().is_none_or(|bin| bin.index < index) {
            bins.push(Bin {
                index,
                ..Bin::default()
            });
        }
        let last = bins.len() - 1;
        &mut bins[last]
    }

    pub(crate) fn sent(&mut self, link: u32, at: u64, bytes: usize, dropped: Option<Drop>) {
        let bin = self.bin(link, at);
        bin.packets += 1;
        bin.bytes += bytes as u64;
        match dropped {
            Some(reason) => bin.drops.add(reason),
            None => bin.carried += bytes as u64,
        }
    }

    /// A packet was dropped at one of the link's ends.
    pub(crate) fn dropped(&mut self, link: u32, at: u64, reason: Drop) {
        self.bin(link, at).drops.add(reason);
    }

    fn widen(&mut self) {
        self.width *= 2;
        for bins in &mut self.links {
            let mut merged: Vec<Bin> = Vec::with_capacity(bins.len() / 2 + 1);
            for bin in bins.drain(..) {
                let index = bin.index / 2;
                match merged.last_mut().filter(|last| last.index == index) {
                    Some(last) => {
                        last.packets += bin.packets;
                        last.bytes += bin.bytes;
                        last.carried += bin.carried;
                        last.drops.merge(&bin.drops);
                    }
                    None => merged.push(Bin { index, ..bin }),
                }
            }
            *bins = merged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_intervals_grow() {
        let mut traffic = Traffic::default();
        for number in 0..100_000_u64 {
            let dropped = (number % 10 == 0).then_some(Drop::Loss);
            traffic.sent(2, number * 700_000, 100, dropped);
        }
        assert!(traffic.links[2].len() <= MAX_BINS);
        assert!(traffic.width > FIRST_WIDTH);
        let packets: u32 = traffic.links[2].iter().map(|bin| bin.packets).sum();
        let lost: u32 = traffic.links[2].iter().map(|bin| bin.drops.loss).sum();
        let carried: u64 = traffic.links[2].iter().map(|bin| bin.carried).sum();
        assert_eq!((packets, lost, carried), (100_000, 10_000, 9_000_000));
        let order = traffic.links[2]
            .windows(2)
            .all(|pair| pair[0].index < pair[1].index);
        assert!(order);
    }
}
