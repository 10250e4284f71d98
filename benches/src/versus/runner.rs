//! Runs the cases: finds each peer's best variant, then measures in interleaved rounds.

use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::args::Args;
use super::case::{Better, Case, Shape};
use super::load::Load;
use super::peer::{self, Peer};
use super::usage::Cpu;
use super::{memory, rtt, sim};

const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_millis(150);
const TRIAL_WARM_UP: Duration = Duration::from_millis(60);
/// Of a measurement's time, at first and for the leaders.
const TRIAL_SHARE: f64 = 0.15;
const FINAL_TRIAL_SHARE: f64 = 0.3;
const FINALISTS: usize = 4;
const FINAL_TRIALS: usize = 2;
const MIB: f64 = 1024.0 * 1024.0;

/// One measurement: a value for each metric of the case, and the CPU time of both ends.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) values: Vec<f64>,
    pub(crate) user_us_per_op: f64,
    pub(crate) system_us_per_op: f64,
}

/// One contender's samples of one case.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: &'static str,
    pub(crate) variant: String,
    /// What each variant's brief trials gave, for the case's first metric.
    pub(crate) trials: Vec<(String, f64)>,
    pub(crate) samples: Vec<Sample>,
}

/// All contenders' samples of one case. Who did not take part has no entry.
#[derive(Debug)]
pub(crate) struct CaseOutcome {
    pub(crate) case: Case,
    pub(crate) entries: Vec<Entry>,
}

/// Everything a run found out.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) cases: Vec<CaseOutcome>,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) errors: Vec<String>,
}

struct Contender<'a> {
    peer: &'a dyn Peer,
    variant: usize,
    label: String,
    trials: Vec<Trial>,
    samples: Vec<Sample>,
}

/// A runtime as every peer gets it.
pub(crate) fn runtime(workers: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
}

/// Runs all that the arguments ask for.
pub(crate) fn run(args: &Args) -> io::Result<Outcome> {
    let peers = peer::all();
    let peers: Vec<&dyn Peer> = peers
        .iter()
        .map(|peer| &**peer)
        .filter(|peer| args.wants_peer(peer.key()))
        .collect();
    let mut outcome = Outcome {
        cases: Vec::new(),
        rounds: args.rounds,
        seconds: args.seconds,
        errors: Vec::new(),
    };
    for case in Case::all(args) {
        let mut contenders = Vec::new();
        for &peer in &peers {
            match choose(peer, &case, args.window()) {
                Ok(Some(contender)) => contenders.push(contender),
                Ok(None) => {}
                Err(error) => note(&mut outcome.errors, &case, peer, &error),
            }
        }
        for round in 1..=args.rounds {
            for contender in &mut contenders {
                let peer = contender.peer;
                match measure(peer, &case, contender.variant, WARM_UP, args.window()) {
                    Ok(Some(sample)) => {
                        let what = format!("round {round}/{}", args.rounds);
                        progress(&case, &what, peer, &contender.label, &sample);
                        contender.samples.push(sample);
                    }
                    Ok(None) => {}
                    Err(error) => note(&mut outcome.errors, &case, peer, &error),
                }
            }
        }
        let entries = contenders.into_iter().map(Contender::into_entry).collect();
        outcome.cases.push(CaseOutcome { case, entries });
    }
    Ok(outcome)
}

impl Contender<'_> {
    fn into_entry(self) -> Entry {
        let trials = self
            .trials
            .into_iter()
            .map(|trial| (median(trial.values.iter().copied()), trial.label));
        Entry {
            key: self.peer.key(),
            variant: self.label,
            trials: trials.map(|(value, label)| (label, value)).collect(),
            samples: self.samples,
        }
    }
}

/// Tries a peer's variants briefly and keeps the best: all of them once, then the leaders again. `None` if the
/// peer does not take part.
///
/// The best is the one whose worst trial is best: some settings run in two modes (whether what is under way
/// still fits the cache), and a lucky trial would choose one that is slow when it counts. One that fails is left
/// out as long as another does not.
fn choose<'a>(peer: &'a dyn Peer, case: &Case, window: Duration) -> io::Result<Option<Contender<'a>>> {
    let better = case.metrics[0].better;
    let labels = peer.variants(case.test);
    let mut trials: Vec<Trial> = labels
        .into_iter()
        .enumerate()
        .map(|(variant, label)| Trial::new(variant, label))
        .collect();
    let mut failure = None;
    for turn in 0..=FINAL_TRIALS {
        let last = if turn == 0 {
            trials.len()
        } else {
            trials.len().min(FINALISTS)
        };
        if turn > 0 && last == 1 {
            break;
        }
        let window = window.mul_f64(if turn == 0 { TRIAL_SHARE } else { FINAL_TRIAL_SHARE });
        for trial in &mut trials[..last] {
            match measure(peer, case, trial.variant, TRIAL_WARM_UP, window) {
                Ok(Some(sample)) => {
                    progress(case, "trial", peer, &trial.label, &sample);
                    trial.values.push(sample.values[0]);
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    eprintln!("{} ({}) is left out: {error}", peer.key(), trial.label);
                    trial.failed = true;
                    failure = Some(error);
                }
            }
        }
        trials.retain(|trial| !trial.failed);
        let last = last.min(trials.len());
        trials[..last].sort_by(|a, b| better.best_first(a.worst(better), b.worst(better)));
    }
    let Some(best) = trials.first() else {
        return failure.map_or(Ok(None), Err);
    };
    let (variant, label) = (best.variant, best.label.clone());
    Ok(Some(Contender {
        peer,
        variant,
        label,
        trials,
        samples: Vec::new(),
    }))
}

/// One variant's trials.
struct Trial {
    variant: usize,
    label: String,
    values: Vec<f64>,
    failed: bool,
}

impl Trial {
    fn new(variant: usize, label: String) -> Trial {
        Trial {
            variant,
            label,
            values: Vec::new(),
            failed: false,
        }
    }

    fn worst(&self, better: Better) -> f64 {
        let worst = self
            .values
            .iter()
            .copied()
            .max_by(|a, b| better.best_first(*a, *b));
        worst.unwrap_or(f64::NAN)
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => f64::NAN,
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

fn measure(
    peer: &dyn Peer,
    case: &Case,
    variant: usize,
    warm_up: Duration,
    window: Duration,
) -> io::Result<Option<Sample>> {
    if let Some(result) = memory::measure(peer, variant, case) {
        return result;
    }
    if let Shape::Sim(net) = case.shape {
        return sim::measure(peer, net, warm_up, window);
    }
    let runtime = runtime(case.workers)?;
    let load = Load::default();
    let setup = peer::start(peer, case, variant, &load);
    let keep = runtime.block_on(async { tokio::time::timeout(SETUP_TIMEOUT, setup).await });
    let keep = keep.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "setting up took too long"))??;
    let Some(keep) = keep else { return Ok(None) };
    let sample = sample(case, &load, warm_up, window);
    load.stop();
    {
        let _inside = runtime.enter();
        drop(keep);
    }
    runtime.shutdown_timeout(Duration::from_secs(2));
    match load.take_error() {
        Some(error) => Err(error),
        None => sample.map(Some),
    }
}

/// Watches a running load from outside its workers.
fn sample(case: &Case, load: &Load, warm_up: Duration, window: Duration) -> io::Result<Sample> {
    std::thread::sleep(warm_up);
    load.set_recording(true);
    let (count, cpu, started) = (load.total(), Cpu::of_this_process()?, Instant::now());
    std::thread::sleep(window);
    let elapsed = started.elapsed().as_secs_f64();
    let (count, cpu) = (load.total() - count, Cpu::of_this_process()?.since(cpu));
    load.set_recording(false);
    if count == 0 {
        return Err(load
            .take_error()
            .unwrap_or_else(|| io::Error::other("nothing moved")));
    }
    let (rate, ops) = (count as f64 / elapsed, count as f64);
    let (values, ops) = match case.shape {
        Shape::Rtt => {
            // They are handed in with the first echo after the window.
            let mut latencies_ns = Vec::new();
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(20));
                latencies_ns = load.take_latencies_ns();
                if !latencies_ns.is_empty() {
                    break;
                }
            }
            let values = rtt::values(latencies_ns);
            (values.ok_or_else(|| io::Error::other("no latencies"))?, ops)
        }
        Shape::Bulk { .. } | Shape::Streams { .. } => (vec![rate], ops / MIB),
        Shape::Rps { .. }
        | Shape::Large { .. }
        | Shape::Items { .. }
        | Shape::Idle { .. }
        | Shape::Pending { .. }
        | Shape::Sim(_) => (vec![rate], ops),
    };
    Ok(Sample {
        values,
        user_us_per_op: cpu.user.as_secs_f64() * 1e6 / ops,
        system_us_per_op: cpu.system.as_secs_f64() * 1e6 / ops,
    })
}

fn progress(case: &Case, what: &str, peer: &dyn Peer, label: &str, sample: &Sample) {
    let metric = &case.metrics[0];
    eprintln!(
        "{} {}  {what}  {} ({label}): {}",
        case.test.name(),
        metric.setting,
        peer.key(),
        super::report::figure(sample.values[0], metric.unit),
    );
}

fn note(errors: &mut Vec<String>, case: &Case, peer: &dyn Peer, error: &io::Error) {
    let text = format!(
        "{} {}: {}: {error}",
        case.test.name(),
        case.metrics[0].setting,
        peer.key()
    );
    eprintln!("versus: {text}");
    errors.push(text);
}
