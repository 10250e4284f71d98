//! Breaks the path that carries the data, lets it heal, waits until the session is safe again, and so on.

use super::fault::{self, Fault, Plan};
use super::traffic::Traffic;
use super::watch::{WINDOW, Watch};
use super::world::{Way, World};
use crate::proxy::Direction;
use sheetbend_tokio::core::session::PathState;
use sheetbend_tokio::{Session, SessionEvent};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long a standby has been warm before the next fault comes.
const WARM: Duration = Duration::from_millis(100);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long a standby is waited for; then the fault comes all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many of the ways that were cut off last stay closed, so that each has its turn.
const REST: usize = 4;
/// With fewer messages than this under way, messages flow.
const BACKLOG: u64 = 100;

/// Causes one fault after the other, the last one before `end`.
pub(super) async fn run(world: &World, watch: &Watch, traffic: &Traffic, end: Duration) {
    let (mut plan, mut closed) = (Plan::default(), VecDeque::new());
    loop {
        let Some(active) = calm(world, watch, traffic).await else {
            return;
        };
        let began = watch.now();
        if began >= end {
            return;
        }
        let way = &world.ways[active];
        let fault = plan.next(way.is_over_udp());
        cause(fault, way, world, watch).await;
        if fault.is_outage() {
            closed.clear();
        } else if fault.closes() {
            closed.push_back(active);
        }
        if closed.len() > REST {
            reopen(world, closed.pop_front()).await;
        }
        watch.healed();
        // The next fault shall not fall into this one's window.
        sleep((began + WINDOW).saturating_sub(watch.now())).await;
    }
}

async fn reopen(world: &World, way: Option<usize>) {
    if let Some(way) = way {
        // One that cannot be opened again is one fewer.
        let _ = world.ways[way].proxy.listen(true).await;
    }
}

/// Notes the session's switches until it ends. Returns the transports that carried something.
pub(super) async fn note_switches(
    world: &World,
    watch: &Watch,
    transports: &std::sync::Mutex<BTreeSet<&str>>,
) {
    let mut events = world.client.events();
    let note = |path: &str| {
        let way = &world.ways[world.way_of(path)?];
        if let Ok(mut transports) = transports.lock() {
            transports.insert(way.transport);
        }
        Some(way.name.clone())
    };
    if let Some(first) = world.client.paths().first() {
        note(&first.name);
    }
    while let Some(event) = events.next().await {
        if let SessionEvent::Switched { from, to, cause, .. } = event {
            let from = from
                .and_then(|path| note(&path))
                .unwrap_or_else(|| "none".to_owned());
            let to = note(&to).unwrap_or_else(|| "unknown".to_owned());
            watch.switched(&from, &to, cause);
        }
    }
}

/// Waits until one path carries the data, another one is warm, and what earlier faults held up has arrived;
/// gives the first path's number.
async fn calm(world: &World, watch: &Watch, traffic: &Traffic) -> Option<usize> {
    let (mut waited, mut calm_for) = (Duration::ZERO, Duration::ZERO);
    let mut last = None;
    loop {
        if world.client.state().is_terminal() {
            return None;
        }
        let (active, warm) = standing(&world.client);
        let active = active.and_then(|name| world.way_of(&name));
        let flows = traffic.messages_sent().saturating_sub(watch.delivered()) < BACKLOG;
        calm_for = match active {
            Some(_) if warm && flows && active == last => calm_for + LOOK,
            _ => Duration::ZERO,
        };
        last = active;
        if active.is_some() && (calm_for >= WARM || waited >= PATIENCE) {
            return active;
        }
        sleep(LOOK).await;
        waited += LOOK;
    }
}

/// The path that carries the data, and whether a sound one stands by.
fn standing(client: &Session) -> (Option<Arc<str>>, bool) {
    let paths = client.paths();
    let of = |state| paths.iter().filter(move |path| path.state == state);
    let active = of(PathState::Active).next().map(|path| path.name.clone());
    let warm = of(PathState::Standby).next().is_some();
    (active, warm)
}

async fn cause(fault: Fault, way: &Way, world: &World, watch: &Watch) {
    let proxy = &way.proxy;
    watch.fault(fault, &way.name);
    match fault {
        // A listener that cannot be closed leaves a plain cut.
        Fault::Cut | Fault::Block => {
            let _ = proxy.listen(false).await;
            proxy.cut();
        }
        Fault::Reset => {
            let _ = proxy.listen(false).await;
            proxy.reset();
        }
        Fault::Rebind => {
            proxy.reset();
        }
        Fault::Stall(time) => {
            proxy.stall(true);
            sleep(time).await;
        }
        Fault::OneWayStall(time) => {
            proxy.stall_direction(Direction::ToTarget, true);
            sleep(time).await;
        }
        Fault::Delay => {
            proxy.delay(fault::DELAY);
            sleep(fault::DELAY_LASTS).await;
        }
        Fault::Throttle => {
            proxy.throttle(Some(fault::THROTTLE));
            sleep(fault::THROTTLE_LASTS).await;
        }
        Fault::Outage(time) => outage(time, world, watch).await,
    }
    proxy.heal();
}

/// Cuts every path and refuses connections for `time`.
async fn outage(time: Duration, world: &World, watch: &Watch) {
    for way in &world.ways {
        let _ = way.proxy.listen(false).await;
    }
    for way in &world.ways {
        way.proxy.cut();
    }
    sleep(time).await;
    let mut accepted = tokio::task::JoinSet::new();
    watch.reopened();
    for way in &world.ways {
        let (proxy, before) = (way.proxy.clone(), way.proxy.counters().total);
        let _ = proxy.listen(true).await;
        accepted.spawn(async move {
            proxy.wait_for(|counters| counters.total > before).await;
        });
    }
    accepted.join_next().await;
    watch.attempt();
}
