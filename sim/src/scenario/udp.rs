//! Datagrams, and what networks do to them.

use super::stage::{Stage, ensure, ms};
use super::{Outcome, Scenario, Setup, raw, scenario};
use crate::fault::Fault;
use crate::net::{LinkConfig, Middlebox};

pub(super) const ALL: &[Scenario] = &[
    scenario(
        "udp-blocked",
        "a firewall that lets no datagram pass, and TCP alone",
        udp_blocked,
    ),
    scenario("udp-loss", "a link that loses a fifth of all packets", udp_loss),
    scenario(
        "udp-rebinding",
        "an address translation that gives a new port",
        udp_rebinding,
    ),
];

fn wifi(config: Option<Middlebox>) -> Fault {
    Fault::Middlebox {
        host: "client".into(),
        network: "wifi".into(),
        config,
    }
}

fn udp_blocked(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    let blocked = Middlebox {
        block_udp: true,
        ..Middlebox::default()
    };
    stage.fault(at, wifi(Some(blocked)));
    stage.fault(at + ms(1000), wifi(None));
    let ends = (stage.client.clone(), stage.server.clone());
    let series = (300, 100, ms(10));
    let seen = raw::datagrams(&mut stage.world, (&ends.0, &ends.1), "server", ms(0), series);
    stage.run(|_, report| {
        let numbers: Vec<u64> = seen.lock().iter().map(|(number, ..)| *number).collect();
        let gap = numbers
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(0);
        ensure!((99..=101).contains(&gap), "{gap} datagrams missing in a row");
        ensure!(
            (199..=201).contains(&numbers.len()),
            "{} of 300 came",
            numbers.len()
        );
        ensure!(report.downs() == 0, "TCP was blocked as well");
        ensure!(report.slowest(ms(100), ms(60_000)) < ms(40), "TCP was slowed");
        Ok(())
    })
}

fn udp_loss(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    stage.link(at, "wifi", LinkConfig::with_delay(ms(5)).loss(0.2));
    stage.link(at + ms(2100), "wifi", LinkConfig::with_delay(ms(5)));
    let ends = (stage.client.clone(), stage.server.clone());
    let series = (1000, 100, ms(2));
    let seen = raw::datagrams(&mut stage.world, (&ends.0, &ends.1), "server", at, series);
    stage.run(|_, _| {
        let came = seen.lock().len();
        ensure!((740..860).contains(&came), "{came} of 1000 came");
        Ok(())
    })
}

fn udp_rebinding(setup: &Setup) -> Outcome {
    let mut stage = Stage::one(setup);
    let at = stage.at;
    let nat = Middlebox {
        nat: true,
        ..Middlebox::default()
    };
    stage.fault(ms(0), wifi(Some(nat)));
    let (host, network) = ("client".to_owned(), "wifi".to_owned());
    stage.fault(at, Fault::Forget { host, network });
    let ends = (stage.client.clone(), stage.server.clone());
    let series = (300, 100, ms(10));
    let seen = raw::datagrams(&mut stage.world, (&ends.0, &ends.1), "server", ms(10), series);
    stage.run(|_, _| {
        let mut ports: Vec<u16> = seen.lock().iter().map(|(.., port)| *port).collect();
        ensure!(ports.len() == 300, "{} of 300 came", ports.len());
        ports.dedup();
        ensure!(ports.len() == 2, "they came from the ports {ports:?}");
        Ok(())
    })
}
