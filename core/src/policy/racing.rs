//! The order and pace in which the addresses of one host are tried (Happy Eyeballs, RFC 8305).

use core::net::SocketAddr;
use std::time::Duration;

use crate::time::Timestamp;

/// How long one address is ahead of the next, by default. RFC 8305 §8 has 250 ms and allows 100.
pub const STAGGER: Duration = Duration::from_millis(100);
/// The most addresses of a name that are tried.
pub const MAX_ADDRESSES: usize = 16;

/// A race between addresses, of which the first that connects wins.
///
/// [`poll_start`](Race::poll_start) until it says `None`, then wait for an attempt to end or for
/// [`poll_timeout`](Race::poll_timeout). An attempt that failed is told of by [`handle_failed`](Race::handle_failed): the
/// next need not wait then. It ends when one has connected, or when it [is lost](Race::is_lost).
#[derive(Clone, Debug)]
pub struct Race {
    order: Vec<SocketAddr>,
    started: usize,
    failed: usize,
    stagger: Duration,
    gate: Timestamp,
}

impl Race {
    /// A race between these addresses: in the order that the resolver gave, the two families in turn (RFC 8305 §4), and
    /// in front of all the one that was connected to last, if it is among them.
    pub fn new(
        addresses: &[SocketAddr],
        last: Option<SocketAddr>,
        stagger: Duration,
        now: Timestamp,
    ) -> Race {
        let mut given: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            if given.len() < MAX_ADDRESSES && !given.contains(address) {
                given.push(*address);
            }
        }
        let first_is_v6 = given.first().is_some_and(SocketAddr::is_ipv6);
        let (first, second): (Vec<_>, Vec<_>) = given.iter().partition(|one| one.is_ipv6() == first_is_v6);
        let mut order = Vec::with_capacity(given.len());
        for at in 0..first.len().max(second.len()) {
            order.extend(first.get(at).into_iter().chain(second.get(at)));
        }
        if let Some(at) = last.and_then(|last| order.iter().position(|one| *one == last)) {
            order[..=at].rotate_right(1);
        }
        Race {
            order,
            started: 0,
            failed: 0,
            stagger,
            gate: now,
        }
    }

    /// The next address to connect to now.
    pub fn poll_start(&mut self, now: Timestamp) -> Option<SocketAddr> {
        if self.started > self.failed && now < self.gate {
            return None;
        }
        let next = *self.order.get(self.started)?;
        self.started += 1;
        self.gate = now + self.stagger;
        Some(next)
    }

    /// One of those that were started has failed.
    pub fn handle_failed(&mut self, now: Timestamp) {
        self.failed = (self.failed + 1).min(self.started);
        // RFC 8305 §5: the next need not wait for it.
        self.gate = self.gate.min(now);
    }

    /// When to start the next, if none of those under way has ended by then.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        (self.started < self.order.len()).then_some(self.gate)
    }

    /// Every address was tried, and failed.
    pub fn is_lost(&self) -> bool {
        self.failed == self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        let parse = |text: &&str| text.parse().expect("an address");
        texts.iter().map(parse).collect()
    }

    /// All of it by the race's own deadlines; none fails.
    fn starts(mut race: Race) -> Vec<(u64, String)> {
        let mut starts = Vec::new();
        let mut now = at(0);
        loop {
            while let Some(next) = race.poll_start(now) {
                starts.push((now.as_nanos() / 1_000_000, next.to_string()));
            }
            match race.poll_timeout() {
                Some(next) => now = now.max(next),
                None => return starts,
            }
        }
    }

    /// RFC 8305 §4 and §5.
    #[test]
    fn families_take_turns_and_each_start_waits_for_its_turn() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1", "[::1]:1"]);
        let race = Race::new(&given, None, STAGGER, at(0));
        let order = ["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"];
        let expected: Vec<(u64, String)> = (0..).step_by(100).zip(order.map(str::to_owned)).collect();
        assert_eq!(starts(race), expected);
    }

    #[test]
    fn who_won_the_last_time_goes_first() {
        let given = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let race = Race::new(&given, Some(given[2]), STAGGER, at(0));
        let order: Vec<String> = starts(race).into_iter().map(|(_, address)| address).collect();
        assert_eq!(order, ["10.0.0.3:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let race = Race::new(
            &given,
            Some("10.9.9.9:1".parse().expect("an address")),
            STAGGER,
            at(0),
        );
        assert_eq!(starts(race)[0].1, "10.0.0.1:1");
    }

    #[test]
    fn the_next_does_not_wait_for_one_that_has_failed() {
        let given = addresses(&["10.0.0.1:1", "10.0.0.2:1"]);
        let mut race = Race::new(&given, None, STAGGER, at(0));
        assert_eq!(race.poll_start(at(0)), Some(given[0]));
        assert_eq!(race.poll_start(at(1)), None);
        race.handle_failed(at(2));
        assert_eq!(race.poll_timeout(), Some(at(2)));
        assert_eq!(race.poll_start(at(2)), Some(given[1]));
        assert!(!race.is_lost());
        race.handle_failed(at(3));
        assert!(race.is_lost());
        assert_eq!((race.poll_start(at(4)), race.poll_timeout()), (None, None));
    }

    #[test]
    fn no_address_is_lost_at_once_and_many_are_cut_off() {
        assert!(Race::new(&[], None, STAGGER, at(0)).is_lost());
        let many: Vec<SocketAddr> = (1..200).map(|port| ([127, 0, 0, 1], port).into()).collect();
        assert_eq!(
            starts(Race::new(&many, None, STAGGER, at(0))).len(),
            MAX_ADDRESSES
        );
    }
}
