//! What a link does to packets.

use super::raw;
use super::stage::{Plan, Stage, ensure, moment, ms};
use super::{Outcome, Scenario, Setup, scenario};
use crate::net::{Burst, Drop, LinkConfig};
use crate::schedule::{Schedule, Step};
use crate::trace::What;

pub(super) const ALL: &[Scenario] = &[
    scenario("delay", "a link that becomes sixteen times as long", delay),
    scenario("jitter", "a delay that changes with every packet", jitter),
    scenario("rate", "a link of one megabit a second", rate),
    scenario("queue", "a short queue that drops its tail", queue),
    scenario(
        "bufferbloat",
        "a long queue that fills, and never drops",
        bufferbloat,
    ),
    scenario("bursty-loss", "packets lost by the handful", bursty_loss),
    scenario("reordering", "packets that overtake each other", reordering),
    scenario("duplication", "packets that arrive twice", duplication),
    scenario(
        "corruption",
        "bits flipped that no checksum of TCP sees",
        corruption,
    ),
    scenario("truncation", "packets cut short", truncation),
    scenario(
        "mtu-black-hole",
        "long packets vanish, short ones pass",
        mtu_black_hole,
    ),
    scenario(
        "changing-link",
        "a rate that falls, stops and comes back",
        changing_link,
    ),
];

fn quick() -> LinkConfig {
    LinkConfig::with_delay(ms(5))
}

fn delay(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    stage.link(at, "wifi", LinkConfig::with_delay(ms(80)));
    stage.run(|_, report| {
        let before = report.slowest(ms(100), at - ms(50));
        ensure!(before < ms(20), "{before:?} before");
        let after = report.quickest(at, ms(60_000));
        ensure!(after >= ms(160) && after < ms(175), "{after:?} at 80 ms one way");
        ensure!(report.downs() == 0, "a path was given up for being long");
        Ok(())
    })
}

fn jitter(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    stage.link(at, "wifi", quick().jitter(ms(40)));
    stage.run(|_, report| {
        let (least, most) = (report.quickest(at, ms(60_000)), report.slowest(at, ms(60_000)));
        ensure!(least >= ms(10), "{least:?} is less than the delay");
        ensure!(most - least > ms(30), "answers take {least:?} to {most:?}");
        ensure!(report.downs() == 0, "a path was given up for jitter");
        Ok(())
    })
}

fn rate(setup: &Setup) -> Outcome {
    let plan = Plan::default();
    let bits = plan.rounds * plan.chunk as u64 * 8;
    let network = [("wifi", quick().rate(1_000_000, 64 << 10))];
    let stage = Stage::new(setup, &network, plan);
    stage.run(|_, report| {
        let took = report.stream_ended.unwrap_or_default().as_nanos();
        let least = bits * 1000;
        ensure!(took > least, "{bits} bits in {took} ns: above the rate");
        ensure!(
            took < least * 5 / 4,
            "{bits} bits in {took} ns: far below the rate"
        );
        Ok(())
    })
}

fn queue(setup: &Setup) -> Outcome {
    let network = [("wifi", quick().rate(4_000_000, 12 << 10))];
    let mut stage = Stage::new(setup, &network, Plan::default());
    let (client, server) = (stage.client.clone(), stage.server.clone());
    raw::flood(&mut stage.world, &client, "server", stage.at, 1_000_000);
    let ledger = stage.ledger.clone();
    stage.least = ms(8000);
    stage.run(|world, _| {
        let stats = world.link_stats(&client, &server, "wifi").unwrap_or_default();
        ensure!(stats.overflowed > 10, "{} packets dropped", stats.overflowed);
        let came: usize = ledger.lock().discarded.iter().map(|(_, count)| count).sum();
        ensure!(came == 1_000_000, "{came} bytes of the flood arrived");
        Ok(())
    })
}

fn bufferbloat(setup: &Setup) -> Outcome {
    let plan = Plan {
        chunk: 1000,
        ..Plan::default()
    };
    let network = [("wifi", quick().rate(2_000_000, 1 << 20))];
    let mut stage = Stage::new(setup, &network, plan);
    let client = stage.client.clone();
    let at = stage.at;
    raw::flood(&mut stage.world, &client, "server", at, 600_000);
    let pings = raw::ping_udp(&mut stage.world, &client, "server", ms(50), ms(4000));
    stage.run(|_, report| {
        let pings = pings.lock();
        let (before, most) = (pings.slowest(ms(0), at - ms(100)), pings.slowest(at, ms(4000)));
        ensure!(before < ms(60), "{before:?} in an empty queue");
        ensure!(most > ms(300), "{most:?} in a full one");
        ensure!(
            report.slowest(at, ms(4000)) > ms(300),
            "requests do not wait in it"
        );
        ensure!(report.downs() == 0, "a busy path was called dead");
        Ok(())
    })
}

fn bursty_loss(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    stage.world.keep_packets();
    let at = stage.at;
    let loss = Burst {
        enter: 0.02,
        leave: 0.3,
        loss_good: 0.0,
        loss_bad: 1.0,
    };
    stage.link(at, "wifi", LinkConfig { loss, ..quick() });
    stage.run(|world, _| {
        let (mut runs, mut longest, mut lost) = ([0, 0], 0, 0);
        for record in world.records() {
            let What::Packet { from, dropped, .. } = record.what else {
                continue;
            };
            let run = &mut runs[usize::from(from == "client")];
            *run = if dropped == Some(Drop::Loss) { *run + 1 } else { 0 };
            lost += u32::from(*run > 0);
            longest = longest.max(*run);
        }
        ensure!(
            lost > 5 && longest >= 2,
            "{lost} lost, {longest} at most in a row"
        );
        Ok(())
    })
}

/// Five hundred datagrams of 100 bytes beside a session, over a link that becomes like this.
fn datagrams_over(setup: &Setup, config: LinkConfig) -> (Stage, raw::Arrived) {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    stage.link(at, "wifi", config);
    let ends = (stage.client.clone(), stage.server.clone());
    let seen = raw::datagrams(
        &mut stage.world,
        (&ends.0, &ends.1),
        "server",
        at,
        (500, 100, ms(2)),
    );
    (stage, seen)
}

fn reordering(setup: &Setup) -> Outcome {
    let config = LinkConfig {
        reorder: 0.2,
        reorder_by: ms(15),
        ..quick()
    };
    let (stage, seen) = datagrams_over(setup, config);
    stage.run(|_, _| {
        let seen = seen.lock();
        let overtaken = seen.windows(2).filter(|pair| pair[1].0 < pair[0].0).count();
        ensure!(overtaken > 50, "{overtaken} of {} overtaken", seen.len());
        Ok(())
    })
}

fn duplication(setup: &Setup) -> Outcome {
    let config = LinkConfig {
        duplicate: 0.2,
        ..quick()
    };
    let (stage, seen) = datagrams_over(setup, config);
    let (client, server) = (stage.client.clone(), stage.server.clone());
    stage.run(|world, _| {
        let came = seen.lock().len();
        ensure!((560..640).contains(&came), "{came} of 500 arrived");
        let stats = world.link_stats(&client, &server, "wifi").unwrap_or_default();
        ensure!(stats.arrived > stats.sent, "no segment arrived twice");
        Ok(())
    })
}

fn corruption(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let (at, client, server) = (stage.at, stage.client.clone(), stage.server.clone());
    let config = LinkConfig {
        corrupt: 0.05,
        corrupt_unseen: 0.6,
        ..quick()
    };
    stage.link(at, "wifi", config);
    stage.link(at + ms(1500), "wifi", quick());
    let pings: Vec<_> = (0..4)
        .map(|_| raw::ping(&mut stage.world, &client, "server", 500, ms(1), ms(4000)))
        .collect();
    stage.run(|world, report| {
        let stats = world.link_stats(&client, &server, "wifi").unwrap_or_default();
        ensure!(stats.damaged > 0, "no checksum was wrong");
        let changed: u32 = pings.iter().map(|pings| pings.lock().changed).sum();
        ensure!(changed > 0, "nothing came changed through plain TCP");
        // One end sees that what came is not what was sent, and ends the path: nothing else does here.
        let (after, ..) = report.down(at, "wifi").ok_or("no path ended")?;
        ensure!(after < ms(1600), "a path ended only after {after:?}");
        Ok(())
    })
}

fn truncation(setup: &Setup) -> Outcome {
    let config = LinkConfig {
        truncate: 0.05,
        ..quick()
    };
    let (stage, seen) = datagrams_over(setup, config);
    let (client, server) = (stage.client.clone(), stage.server.clone());
    stage.run(|world, report| {
        let short = seen.lock().iter().filter(|(_, len, _)| *len < 100).count();
        ensure!((10..45).contains(&short), "{short} datagrams of 500 came short");
        let stats = world.link_stats(&client, &server, "wifi").unwrap_or_default();
        ensure!(stats.damaged > 0, "no segment was cut");
        ensure!(report.downs() == 0, "TCP let through what was cut");
        Ok(())
    })
}

fn mtu_black_hole(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client, server) = (stage.at, stage.client.clone(), stage.server.clone());
    let config = LinkConfig { mtu: 600, ..quick() };
    stage.link(at, "wifi", config);
    stage.link(at + ms(2500), "wifi", quick());
    let small = raw::ping(&mut stage.world, &client, "server.wifi", 100, ms(20), ms(4000));
    let large = raw::ping(&mut stage.world, &client, "server.wifi", 3000, ms(20), ms(4000));
    stage.run(|world, report| {
        let stats = world.link_stats(&client, &server, "wifi").unwrap_or_default();
        ensure!(stats.oversized > 0, "nothing was too long");
        let (small, large) = (small.lock(), large.lock());
        let slowest = small.slowest(at, at + ms(2400));
        ensure!(slowest < ms(60), "short packets are delayed by {slowest:?}");
        let stalled = large.slowest(at - ms(60), at + ms(2400));
        ensure!(stalled > ms(2000), "long ones pass after {stalled:?}");
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(after < ms(1000), "it moved after {after:?} ({cause:?})");
        Ok(())
    })
}

fn changing_link(setup: &Setup) -> Outcome {
    let plan = Plan {
        chunk: 1000,
        ..Plan::default()
    };
    let mut stage = Stage::new(setup, &[("wifi", quick().rate(8_000_000, 400_000))], plan);
    let (at, client) = (stage.at, stage.client.clone());
    let step = |after: u64, rate| Step {
        at: at + ms(after),
        rate,
        delay: None,
    };
    let steps = vec![
        step(0, 8_000_000),
        step(1000, 800_000),
        step(2000, 0),
        step(2700, 8_000_000),
    ];
    for (from, to) in [("client", "server"), ("server", "client")] {
        stage.world.vary(from, to, "wifi", Schedule::new(steps.clone()));
    }
    raw::flood(&mut stage.world, &client, "server", at - ms(500), 10_000_000);
    let ledger = stage.ledger.clone();
    stage.least = at + ms(4000);
    stage.run(|_, _| {
        let ledger = ledger.lock();
        // Kilobits that came in a span, less what was under way when it began.
        let came = |from: u64, to: u64| {
            let (from, to) = (moment(at + ms(from)), moment(at + ms(to)));
            let own = ledger
                .discarded
                .iter()
                .filter(|(when, _)| *when >= from && *when < to);
            own.map(|(_, count)| count * 8 / 1000).sum::<usize>()
        };
        let (full, tenth, none, again) = (
            came(0, 1000),
            came(1020, 2000),
            came(2020, 2700),
            came(2900, 3900),
        );
        ensure!((5500..8700).contains(&full), "{full} kbit at 8 Mbit/s");
        ensure!((500..850).contains(&tenth), "{tenth} kbit at 0.8 Mbit/s");
        ensure!(none < 20, "{none} kbit at a standstill");
        ensure!(again > 2000, "{again} kbit afterwards");
        Ok(())
    })
}
