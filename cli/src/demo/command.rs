//! `sheetbend demo` from its start to its exit code.

use super::director;
use super::rate::RateMeter;
use super::report::Report;
use super::screen::Screen;
use super::summary;
use super::table::{PathRow, PathState, Traffic as Row, View};
use super::traffic::Traffic;
use super::watch::Watch;
use super::world::World;
use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::output;
use sheetbend_tokio::core::session::PathState as Standing;
use sheetbend_tokio::{ErrorCode, PathStats};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The time between two frames of the table.
const FRAME: Duration = Duration::from_millis(100);
/// How long everything may take to arrive after the last fault.
const SETTLE: Duration = Duration::from_secs(10);
/// How long the session may take to close.
const CLOSE: Duration = Duration::from_secs(1);

/// Runs the demo.
///
/// # Errors
/// It cannot be set up, or something was lost, doubled, reordered or damaged.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let world = World::start().await?;
    let watch = Arc::new(Watch::new());
    let (traffic, mut senders, _receivers) = Traffic::start(&world, watch.clone());
    let transports = Mutex::new(BTreeSet::new());
    let mut show = Show::new(&args, &world, &watch, &traffic);
    {
        let end = Duration::from_secs(args.seconds);
        let breaking = director::run(&world, &watch, &traffic, end);
        let noting = director::note_switches(&world, &watch, &transports);
        tokio::pin!(breaking, noting);
        let (late, interrupted) = (sleep(end + SETTLE), tokio::signal::ctrl_c());
        tokio::pin!(late, interrupted);
        tokio::select! {
            () = &mut late => {}
            _ = &mut interrupted => {}
            () = &mut breaking => {}
            () = &mut noting => {}
            failure = show.run() => return Err(failure),
        }
        // Whatever fault was in force is over.
        for way in &world.ways {
            way.proxy.heal();
            let _ = way.proxy.listen(true).await;
        }
        watch.healed();
        traffic.stop();
        let settled = async {
            while senders.join_next().await.is_some() {}
            while !traffic.is_settled() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = timeout(SETTLE, settled) => {}
            () = &mut noting => {}
            failure = show.run() => return Err(failure),
        }
    }
    watch.finish(traffic.messages_sent());
    let transports = transports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = Report::new(
        transports.into_iter().map(str::to_owned).collect(),
        traffic.requests(),
        watch.messages(traffic.messages_sent()),
        traffic.stream(),
        watch.switches(),
        watch.now(),
    )
    .with_outages(watch.outages());
    let closing = world.client.close(ErrorCode::NONE, "the demo is over");
    // A session without a path cannot say goodbye.
    let _ = timeout(CLOSE, closing).await;
    finish(&args, show.screen, &report)
}

fn finish(args: &DemoArgs, screen: Screen, report: &Report) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::failed(format!("cannot write to stdout: {error}"));
    screen
        .finish(|room| summary::render(report, room))
        .map_err(broken)?;
    if args.json {
        let text = report
            .to_json()
            .map_err(|error| Failure::failed(error.to_string()))?;
        output::line(&text)?;
    }
    if report.ok() {
        Ok(())
    } else {
        Err(Failure::failed(summary::mishaps(report)))
    }
}

/// Draws the table again and again.
struct Show<'a> {
    screen: Screen,
    total: Duration,
    world: &'a World,
    watch: &'a Watch,
    traffic: &'a Traffic,
    paths: Vec<RateMeter>,
    requests: RateMeter,
    messages: RateMeter,
    stream: RateMeter,
}

impl<'a> Show<'a> {
    fn new(args: &DemoArgs, world: &'a World, watch: &'a Watch, traffic: &'a Traffic) -> Show<'a> {
        Show {
            screen: Screen::new(args.json),
            total: Duration::from_secs(args.seconds),
            world,
            watch,
            traffic,
            paths: world.ways.iter().map(|_| RateMeter::default()).collect(),
            requests: RateMeter::default(),
            messages: RateMeter::default(),
            stream: RateMeter::default(),
        }
    }

    /// Ends only when nothing can be shown any more.
    async fn run(&mut self) -> Failure {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            frames.tick().await;
            let view = self.view();
            if let Err(error) = self.screen.draw(&view) {
                return Failure::failed(format!("cannot write to stdout: {error}"));
            }
        }
    }

    fn view(&mut self) -> View {
        let elapsed = self.watch.now();
        let requests = self.traffic.requests();
        let sent = self.traffic.messages_sent();
        let messages = self.watch.messages(sent);
        let (streamed, stream_wrong) = self.traffic.stream_arrived();
        let force = self.watch.in_force();
        View {
            elapsed,
            total: self.total,
            paths: self.path_rows(elapsed),
            fault: force.map(|(fault, way)| fault.words(&way)),
            requests: Row {
                sent: requests.sent,
                arrived: requests.answered,
                per_second: self.requests.update(elapsed, requests.answered),
                wrong: requests.duplicated,
            },
            messages: Row {
                sent,
                arrived: messages.delivered,
                per_second: self.messages.update(elapsed, messages.delivered),
                wrong: messages.duplicated + messages.reordered,
            },
            stream: Row {
                sent: self.traffic.stream_sent(),
                arrived: streamed,
                per_second: self.stream.update(elapsed, streamed),
                wrong: u64::from(stream_wrong),
            },
            switches: self.watch.switches(),
        }
    }

    fn path_rows(&mut self, elapsed: Duration) -> Vec<PathRow> {
        let paths = self.world.client.paths();
        let force = self.watch.in_force();
        let ways = self.world.ways.iter().zip(&mut self.paths);
        let row = |(way, rate): (&super::world::Way, &mut RateMeter)| {
            let name = way.path_name();
            let path = paths.iter().find(|path| *path.name == *name && is_up(path));
            let counters = way.proxy.counters();
            let total = counters.to_target_bytes + counters.to_client_bytes;
            let broken = force
                .as_ref()
                .filter(|(fault, broken)| fault.is_outage() || *broken == way.name);
            PathRow {
                name: way.name.clone(),
                address: name.split_once("://").map_or("", |(_, rest)| rest).to_owned(),
                state: path.map_or(PathState::Down, state),
                rtt: path.and_then(|path| path.rtt),
                sent_bytes: counters.to_target_bytes,
                received_bytes: counters.to_client_bytes,
                bytes_per_second: rate.update(elapsed, total),
                fault: broken.map(|(fault, _)| fault.mark().to_owned()),
            }
        };
        ways.map(row).collect()
    }
}

fn is_up(path: &PathStats) -> bool {
    !matches!(path.state, Standing::Handshake | Standing::Closing)
}

fn state(path: &PathStats) -> PathState {
    match path.state {
        Standing::Active => PathState::Active,
        Standing::Standby => PathState::Standby,
        Standing::Suspect => PathState::Suspect,
        Standing::Handshake | Standing::Closing => PathState::Down,
    }
}
