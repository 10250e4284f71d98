//! A link does what its settings say: a million packets each, and 2 % between setting and measurement.

use super::*;

const PACKETS: u64 = 1_000_000;
const MILLI: u64 = 1_000_000;
/// Bytes of a packet, and of its payload.
const SIZE: usize = 1000;
const PAYLOAD: usize = 960;

fn link(config: LinkConfig) -> Link {
    Link::new(config, Rng::from_seed([11; 32]))
}

#[track_caller]
fn close_to(measured: f64, setting: f64, what: &str) {
    let off = (measured - setting).abs() / setting;
    assert!(off < 0.02, "{what}: {measured} where {setting} is set");
}

/// Sends datagrams `gap` apart; the fate of each, with the time at which it was sent.
fn carry(link: &mut Link, gap: u64) -> impl Iterator<Item = (u64, Fate)> + '_ {
    (0..PACKETS).map(move |number| {
        let now = number * gap;
        (now, link.carry(now, SIZE, PAYLOAD, false))
    })
}

fn share(of: u64) -> f64 {
    of as f64 / PACKETS as f64
}

fn duration(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn delay() {
    let mut link = link(LinkConfig::with_delay(duration(30)));
    let all = carry(&mut link, MILLI).all(|(sent, fate)| fate.unwrap()[0].at - sent == 30 * MILLI);
    assert!(all, "without jitter every packet takes exactly the delay");
}

#[test]
fn jitter() {
    let mut link = link(LinkConfig::with_delay(duration(30)).jitter(duration(20)));
    let (mut sum, mut squares, mut least, mut most) = (0.0, 0.0, u64::MAX, 0);
    // Farther apart than the jitter, so that keeping the order adds nothing.
    for (sent, fate) in carry(&mut link, 25 * MILLI) {
        let took = fate.unwrap()[0].at - sent;
        (least, most) = (least.min(took), most.max(took));
        let millis = took as f64 / MILLI as f64;
        (sum, squares) = (sum + millis, squares + millis * millis);
    }
    let mean = sum / PACKETS as f64;
    close_to(mean - 30.0, 10.0, "mean of the jitter");
    // Evenly spread over 20 ms: the deviation is 20 / √12.
    close_to(
        (squares / PACKETS as f64 - mean * mean).sqrt(),
        20.0 / 12_f64.sqrt(),
        "its deviation",
    );
    assert!((30 * MILLI..30 * MILLI + MILLI / 10).contains(&least));
    assert!((50 * MILLI - MILLI / 10..=50 * MILLI).contains(&most));
}

#[test]
fn jitter_keeps_the_order() {
    let mut link = link(LinkConfig::with_delay(duration(30)).jitter(duration(20)));
    let mut last = 0;
    for (_, fate) in carry(&mut link, MILLI / 10) {
        let at = fate.unwrap()[0].at;
        assert!(at >= last);
        last = at;
    }
}

#[test]
fn rate() {
    // 8 Mbit/s are one packet of 1,000 bytes a millisecond; they come at twice that.
    let mut link = link(LinkConfig::with_delay(Duration::ZERO).rate(8_000_000, 50_000));
    let (mut arrived, mut last) = (0, 0);
    for (_, fate) in carry(&mut link, MILLI / 2) {
        if let Ok(arrivals) = fate {
            arrived += 1;
            last = arrivals[0].at;
        }
    }
    let bits = (arrived * SIZE as u64 * 8) as f64;
    close_to(bits / (last as f64 / 1e9), 8e6, "bits per second");
}

#[test]
fn queue_drops_at_its_tail() {
    let mut link = link(LinkConfig::with_delay(Duration::ZERO).rate(8_000_000, 50_000));
    let (mut longest, mut dropped) = (0, 0);
    for (sent, fate) in carry(&mut link, MILLI / 2) {
        match fate {
            Ok(arrivals) => longest = longest.max(arrivals[0].at - sent),
            Err(reason) => {
                assert_eq!(reason, Drop::Queue);
                dropped += 1;
            }
        }
    }
    close_to(longest as f64, 50.0 * MILLI as f64, "the wait in a full queue");
    close_to(share(dropped), 0.5, "packets beyond the rate");
    assert_eq!(link.stats.overflowed, dropped);
}

#[test]
fn no_queue_no_wait() {
    // Below the rate nothing waits but for its own bits.
    let mut link = link(LinkConfig::with_delay(Duration::ZERO).rate(8_000_000, 2_000));
    assert!(carry(&mut link, 2 * MILLI).all(|(sent, fate)| fate.unwrap()[0].at - sent == MILLI));
}

#[test]
fn independent_loss() {
    let mut link = link(LinkConfig::default().loss(0.05));
    let lost = carry(&mut link, MILLI).filter(|(_, fate)| fate.is_err()).count();
    close_to(share(lost as u64), 0.05, "loss");
    assert_eq!(link.stats.lost, lost as u64);
}

#[test]
fn bursty_loss() {
    let loss = Burst {
        enter: 0.05,
        leave: 0.25,
        loss_good: 0.0,
        loss_bad: 1.0,
    };
    let mut link = link(LinkConfig {
        loss,
        ..LinkConfig::default()
    });
    let (mut lost, mut bursts, mut before) = (0, 0, false);
    for (_, fate) in carry(&mut link, MILLI) {
        let gone = fate == Err(Drop::Loss);
        lost += u64::from(gone);
        bursts += u64::from(gone && !before);
        before = gone;
    }
    close_to(share(lost), loss.mean(), "mean loss");
    close_to(loss.mean(), 1.0 / 6.0, "what the formula says");
    close_to(lost as f64 / bursts as f64, 4.0, "packets of a burst");
}

#[test]
fn partial_loss_in_both_states() {
    let loss = Burst {
        enter: 0.1,
        leave: 0.3,
        loss_good: 0.02,
        loss_bad: 0.6,
    };
    let mut link = link(LinkConfig {
        loss,
        ..LinkConfig::default()
    });
    let lost = carry(&mut link, MILLI).filter(|(_, fate)| fate.is_err()).count();
    close_to(share(lost as u64), 0.25 * 0.6 + 0.75 * 0.02, "mean loss");
}

#[test]
fn reordering() {
    let mut link = link(LinkConfig {
        delay: duration(10),
        reorder: 0.1,
        reorder_by: duration(3),
        ..LinkConfig::default()
    });
    let (mut late, mut overtaken, mut latest) = (0, 0, 0);
    for (sent, fate) in carry(&mut link, MILLI) {
        let at = fate.unwrap()[0].at;
        let took = at - sent;
        assert!(took == 10 * MILLI || took == 13 * MILLI);
        late += u64::from(took == 13 * MILLI);
        latest = latest.max(at);
        overtaken += u64::from(at < latest);
    }
    close_to(share(late), 0.1, "packets held back");
    // Overtaken within 3 ms: the packets right after one that was held back, unless they were, too.
    let expected = 0.9 * (1.0 - 0.9_f64.powi(2));
    close_to(
        share(overtaken),
        expected,
        "packets that arrive before an earlier one",
    );
}

#[test]
fn duplication() {
    let mut link = link(LinkConfig {
        duplicate: 0.05,
        ..LinkConfig::default()
    });
    let copies: usize = carry(&mut link, MILLI).map(|(_, fate)| fate.unwrap().len()).sum();
    close_to(share(copies as u64 - PACKETS), 0.05, "second copies");
    assert_eq!(link.stats.arrived, copies as u64);
}

#[test]
fn corruption() {
    let mut link = link(LinkConfig {
        corrupt: 0.1,
        corrupt_unseen: 0.3,
        ..LinkConfig::default()
    });
    let (mut seen, mut unseen, mut first_half) = (0, 0, 0);
    for (_, fate) in carry(&mut link, MILLI) {
        match fate {
            Err(reason) => {
                assert_eq!(reason, Drop::Checksum);
                seen += 1;
            }
            Ok(arrivals) => {
                if let Some(bit) = arrivals[0].flip {
                    assert!((bit as usize) < PAYLOAD * 8);
                    unseen += 1;
                    first_half += u64::from((bit as usize) < PAYLOAD * 4);
                }
            }
        }
    }
    close_to(share(seen + unseen), 0.1, "corrupted packets");
    close_to(
        unseen as f64 / (seen + unseen) as f64,
        0.3,
        "with a checksum that is right",
    );
    close_to(first_half as f64 / unseen as f64, 0.5, "flips in the first half");
    assert_eq!(link.stats.damaged, seen);
}

#[test]
fn truncation() {
    let config = LinkConfig {
        truncate: 0.1,
        ..LinkConfig::default()
    };
    let mut datagrams = link(config.clone());
    let (mut cut, mut kept) = (0, 0);
    for (_, fate) in carry(&mut datagrams, MILLI) {
        if let Some(keep) = fate.unwrap()[0].keep {
            assert!((keep as usize) < PAYLOAD);
            cut += 1;
            kept += u64::from(keep);
        }
    }
    close_to(share(cut), 0.1, "datagrams cut short");
    close_to(
        kept as f64 / cut as f64,
        PAYLOAD as f64 / 2.0,
        "bytes left of one",
    );

    let mut segments = link(config);
    let gone = (0..PACKETS)
        .filter(|now| segments.carry(*now, SIZE, PAYLOAD, true) == Err(Drop::Checksum))
        .count();
    close_to(share(gone as u64), 0.1, "TCP segments thrown away");
}

#[test]
fn longer_than_the_mtu() {
    let mut link = link(LinkConfig {
        mtu: SIZE,
        ..LinkConfig::default()
    });
    assert!(link.carry(0, SIZE, PAYLOAD, true).is_ok());
    assert_eq!(link.carry(0, SIZE + 1, PAYLOAD + 1, true), Err(Drop::Mtu));
    assert_eq!(link.stats.oversized, 1);
}

#[test]
fn what_waits_goes_at_the_new_rate() {
    let mut link = link(LinkConfig::with_delay(Duration::ZERO).rate(8_000_000, 0));
    for _ in 0..100 {
        link.carry(0, SIZE, PAYLOAD, true).unwrap();
    }
    assert_eq!(
        link.carry(0, SIZE, PAYLOAD, true).unwrap()[0].departs,
        101 * MILLI
    );
    // After 41 ms, 60 packets are left.
    let config = LinkConfig::with_delay(Duration::ZERO).rate(80_000_000, 0);
    let change = link.set_config(41 * MILLI, config).expect("something waits");
    assert_eq!(change.departs(101 * MILLI), 41 * MILLI + 6 * MILLI);
    assert_eq!(change.departs(41 * MILLI), 41 * MILLI);
    let next = link.carry(41 * MILLI, SIZE, PAYLOAD, true).unwrap()[0];
    assert_eq!(next.departs, 47 * MILLI + MILLI / 10);
}
