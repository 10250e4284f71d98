//! Sessions over QUIC, and what networks do to UDP.

use std::time::Duration;

use sheetbend_runtime::{Moved, SessionEvent};

use super::service::PORT;
use super::stage::{self, Check, Stage, ensure, ms};
use super::{Outcome, Scenario, Setup, scenario};
use crate::fault::Fault;
use crate::net::{LinkConfig, Middlebox};

pub(super) const ALL: &[Scenario] = &[
    scenario("quic", "QUIC on a link that loses one packet in fifty", lossy),
    scenario(
        "quic-reordered",
        "QUIC on a link that jumbles and doubles packets",
        jumbled,
    ),
    scenario(
        "quic-blocked",
        "a firewall lets no UDP pass any more: all moves to TCP",
        blocked,
    ),
    scenario(
        "quic-rebinding",
        "an address translation gives QUIC a new port, twice",
        rebinding,
    ),
    scenario(
        "quic-migration",
        "a client under load goes on from another socket",
        migration,
    ),
    scenario("quic-mtu", "a link takes shorter packets than it did", shorter),
];

fn box_on_wifi(config: Option<Middlebox>) -> Fault {
    Fault::Middlebox {
        host: "client".into(),
        network: "wifi".into(),
        config,
    }
}

fn over_quic(setup: &Setup) -> Stage {
    over(setup, "quic")
}

/// A stage whose only endpoint is of that scheme.
fn over(setup: &Setup, scheme: &str) -> Stage {
    let mut stage = Stage::one(setup);
    stage.endpoints(&[&format!("{scheme}://server.wifi:{PORT}")]);
    stage
}

fn lossy(setup: &Setup) -> Outcome {
    lossy_over(setup, "quic")
}

pub(super) fn lossy_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    stage.link(at, "wifi", LinkConfig::with_delay(ms(5)).loss(0.02));
    let prefix = format!("{scheme}://");
    stage.run(move |_, report| {
        ensure!(report.downs() == 0, "{} paths ended", report.downs());
        ensure!(report.ups(&prefix) == 1, "it is not over {prefix}");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(400), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn jumbled(setup: &Setup) -> Outcome {
    let mut stage = over_quic(setup);
    let at = stage.at;
    let jumble = LinkConfig {
        jitter: ms(8),
        duplicate: 0.05,
        ..LinkConfig::with_delay(ms(5))
    };
    stage.link(at, "wifi", jumble);
    stage.run(|_, report| {
        ensure!(report.downs() == 0, "{} paths ended", report.downs());
        Ok(())
    })
}

fn blocked(setup: &Setup) -> Outcome {
    blocked_over(setup, "quic")
}

pub(super) fn blocked_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    let firewall = Middlebox {
        block_udp: true,
        ..Middlebox::default()
    };
    stage.endpoints(&[
        &format!("{scheme}://server.wifi:{PORT}"),
        &format!("tls://server.wifi:{PORT}"),
    ]);
    stage.fault(at, box_on_wifi(Some(firewall)));
    let prefix = format!("{scheme}://");
    stage.run(move |_, report| {
        ensure!(report.ups(&prefix) >= 1, "{prefix} never came up");
        let switched = report.switched(at, "tls://");
        ensure!(switched.is_some(), "nothing moved to TCP");
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(1500), "a request waited for {slowest:?}");
        Ok(())
    })
}

fn moves(report: &stage::Report) -> Vec<Moved> {
    let events = report.events.iter();
    events
        .filter_map(|(_, event)| match event {
            SessionEvent::PathMoved { how, .. } => Some(*how),
            _ => None,
        })
        .collect()
}

fn goes_on(report: &stage::Report, round_trip: Duration) -> Check {
    ensure!(report.downs() == 0, "{} paths ended", report.downs());
    // A request is asked every 40 ms.
    let gap = report.gap();
    let most = round_trip * 2 + ms(50) + ms(40);
    ensure!(gap <= most, "{gap:?} without an answer");
    Ok(())
}

fn rebinding(setup: &Setup) -> Outcome {
    rebinding_over(setup, "quic")
}

pub(super) fn rebinding_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    let nat = Middlebox {
        nat: true,
        ..Middlebox::default()
    };
    stage.fault(ms(0), box_on_wifi(Some(nat)));
    for after in [at, at + ms(900)] {
        let (host, network) = ("client".to_owned(), "wifi".to_owned());
        stage.fault(after, Fault::Forget { host, network });
    }
    stage.run(|_, report| goes_on(report, ms(10)))
}

fn migration(setup: &Setup) -> Outcome {
    migration_over(setup, "quic")
}

pub(super) fn migration_over(setup: &Setup, scheme: &str) -> Outcome {
    let mut stage = over(setup, scheme);
    let at = stage.at;
    stage.rebinds = vec![at, at + ms(500), at + ms(900)];
    stage.run(|_, report| {
        let moves = moves(report);
        let changed = moves.iter().filter(|how| **how == Moved::Changed).count();
        ensure!(changed == 3, "{moves:?}");
        ensure!(moves.last() == Some(&Moved::Proven), "{moves:?}");
        goes_on(report, ms(10))
    })
}

fn shorter(setup: &Setup) -> Outcome {
    let mut stage = over_quic(setup);
    let at = stage.at;
    let short = LinkConfig {
        mtu: 1280,
        ..LinkConfig::with_delay(ms(5))
    };
    stage.link(at, "wifi", short);
    stage.run(|_, report| {
        let slowest = report.slowest(ms(0), ms(60_000));
        ensure!(slowest < ms(3000), "a request waited for {slowest:?}");
        Ok(())
    })
}
