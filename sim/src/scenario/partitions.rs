//! Networks that are cut.

use sheetbend_runtime::{PathEnd, SwitchCause};

use super::service::ECHO;
use super::stage::{Stage, ensure, moment, ms, partition};
use super::{Outcome, Scenario, Setup, raw, scenario};
use crate::fault::Fault;

pub(super) const ALL: &[Scenario] = &[
    scenario("partition", "the preferred network is cut, both ways", two_way),
    scenario(
        "partition-one-way",
        "the server still hears, and is not heard",
        one_way,
    ),
    scenario(
        "partition-other-way",
        "the client still hears, and is not heard",
        other_way,
    ),
    scenario(
        "partition-flapping",
        "the preferred network comes and goes",
        flapping,
    ),
    scenario(
        "partition-total",
        "the only network is cut for five seconds",
        total,
    ),
    scenario(
        "interface-down",
        "the preferred interface is switched off",
        interface_down,
    ),
];

fn two_way(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client) = (stage.at, stage.client.clone());
    stage.cut(at, "wifi", true);
    stage.cut(at + ms(4000), "wifi", false);
    let pings = raw::ping(&mut stage.world, &client, "server.wifi", 10, ms(20), ms(60_000));
    stage.plan.rest = Some((80, ms(5000)));
    stage.run(|_, report| {
        let silence = pings.lock().slowest(at - ms(20), at + ms(100));
        ensure!(silence > ms(3900), "plain TCP is answered after {silence:?}");
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(
            cause == SwitchCause::Suspect && after < ms(400),
            "{cause:?} after {after:?}"
        );
        let gap = report.slowest(at - ms(50), at + ms(100));
        ensure!(gap < ms(500), "the gap is {gap:?}");
        let (after, end, _) = report.down(at, "wifi").ok_or("the path never ended")?;
        ensure!(
            end == PathEnd::Local && after >= ms(1000),
            "{end:?} after {after:?}"
        );
        Ok(())
    })
}

/// Cuts one direction of the preferred network for four seconds.
fn half(setup: &Setup, from: &str, to: &str) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    stage.fault(at, partition(from, to, "wifi", true));
    stage.fault(at + ms(4000), partition(from, to, "wifi", false));
    let ends = (stage.client.clone(), stage.server.clone());
    let up = raw::datagrams(
        &mut stage.world,
        (&ends.0, &ends.1),
        "server.wifi",
        ms(0),
        (400, 20, ms(10)),
    );
    let down = raw::datagrams(
        &mut stage.world,
        (&ends.1, &ends.0),
        "client.wifi",
        ms(0),
        (400, 20, ms(10)),
    );
    let deaf = from == "client";
    stage.run(|_, report| {
        let (up, down) = (up.lock().len(), down.lock().len());
        let (silent, heard) = if deaf { (up, down) } else { (down, up) };
        let most = usize::try_from(at.as_millis()).unwrap_or(0) / 10 + 1;
        ensure!(heard == 400, "{heard} of 400 came in the direction that is whole");
        ensure!(
            silent <= most,
            "{silent} of 400 came in the direction that is cut"
        );
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(
            cause == SwitchCause::Suspect && after < ms(400),
            "{cause:?} after {after:?}"
        );
        let gap = report.slowest(at - ms(50), at + ms(100));
        ensure!(gap < ms(500), "the gap is {gap:?}");
        Ok(())
    })
}

fn one_way(setup: &Setup) -> Outcome {
    half(setup, "server", "client")
}

fn other_way(setup: &Setup) -> Outcome {
    half(setup, "client", "server")
}

fn flapping(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let at = stage.at;
    for round in 0..8 {
        stage.cut(at + ms(round * 600), "wifi", true);
        stage.cut(at + ms(round * 600 + 300), "wifi", false);
    }
    let ends = (stage.client.clone(), stage.server.clone());
    let series = (480, 20, ms(10));
    let seen = raw::datagrams(&mut stage.world, (&ends.0, &ends.1), "server.wifi", at, series);
    stage.least = at + ms(5000);
    stage.run(|_, report| {
        let numbers: Vec<u64> = seen.lock().iter().map(|(number, ..)| *number).collect();
        let gaps = numbers.windows(2).filter(|pair| pair[1] - pair[0] > 20).count();
        ensure!(gaps == 7, "{gaps} silences between others");
        let gap = report.slowest(at - ms(50), ms(60_000));
        ensure!(gap < ms(500), "the longest gap is {gap:?}");
        let switches = report.events.iter();
        let switches = switches
            .filter(|(_, event)| matches!(event, sheetbend_runtime::SessionEvent::Switched { .. }))
            .count();
        ensure!(
            switches < 20,
            "data moved {switches} times: it flaps with the network"
        );
        Ok(())
    })
}

fn total(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let (at, client) = (stage.at, stage.client.clone());
    stage.cut(at, "wifi", true);
    stage.cut(at + ms(5000), "wifi", false);
    let pings = raw::ping(&mut stage.world, &client, "server", 10, ms(20), ms(60_000));
    stage.least = at + ms(8000);
    stage.run(|_, report| {
        let silence = pings.lock().slowest(at - ms(20), at + ms(100));
        ensure!(silence > ms(4900), "plain TCP is answered after {silence:?}");
        let gap = report.slowest(at - ms(50), at + ms(100));
        ensure!(gap > ms(4900) && gap < ms(7500), "the gap is {gap:?}");
        Ok(())
    })
}

fn interface_down(setup: &Setup) -> Outcome {
    let mut stage = Stage::two(setup);
    let (at, client) = (stage.at, stage.client.clone());
    let interface = |up| Fault::Interface {
        host: "client".into(),
        network: "wifi".into(),
        up,
    };
    stage.fault(at, interface(false));
    stage.fault(at + ms(2000), interface(true));
    let knock = raw::knock(&mut stage.world, &client, at + ms(500), "server.wifi", ECHO);
    stage.plan.rest = Some((80, ms(5000)));
    stage.run(|_, report| {
        let (error, took) = knock.take().ok_or("the knock never ended")?;
        let unreachable = error == Some(std::io::ErrorKind::NetworkUnreachable);
        ensure!(unreachable && took.is_zero(), "{error:?} after {took:?}");
        let (after, cause) = report.switched(at, "lte").ok_or("the session stayed")?;
        ensure!(after < ms(400), "{cause:?} after {after:?}");
        let back = report.ups("wifi");
        ensure!(
            back >= 2,
            "{back} paths came up, the last before {:?}",
            moment(at + ms(2000))
        );
        Ok(())
    })
}
