//! Memory: what stays resident of sessions or calls once they stand.
//!
//! Each peer is measured in a child process of its own, so that no allocator holds another's leftovers. A few of
//! what is counted are made first and kept, so that what is paid once does not count. Memory in the kernel (socket
//! buffers) is not part of it, nor are the program's own pages.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::Args;
use super::case::{Case, Shape, Test};
use super::peer::{self, Peer};
use super::runner::{Sample, runtime};
use super::usage::{Cpu, resident_anonymous_kib};

/// Worker threads of the child.
pub(crate) const WORKERS: usize = 1;
const KEPT_BEFORE: usize = 32;
const SETTLE: Duration = Duration::from_millis(600);

#[derive(Serialize, Deserialize)]
struct Finding {
    kib_each: f64,
    user_us_each: f64,
    system_us_each: f64,
}

/// Measures in a child process, if the case is of memory.
pub(crate) fn measure(peer: &dyn Peer, variant: usize, case: &Case) -> Option<io::Result<Option<Sample>>> {
    let count = match case.shape {
        Shape::Idle { sessions } => sessions,
        Shape::Pending { calls } => calls,
        _ => return None,
    };
    Some(run_child(peer, variant, case.test, count))
}

fn run_child(peer: &dyn Peer, variant: usize, test: Test, count: usize) -> io::Result<Option<Sample>> {
    let output = Command::new(std::env::current_exe()?)
        .args([
            "--memory-child",
            peer.key(),
            "--memory-variant",
            &variant.to_string(),
        ])
        .args(["--memory-count", &count.to_string(), "--only", test.name()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "the child ended with {}",
            output.status
        )));
    }
    let finding: Option<Finding> = serde_json::from_slice(&output.stdout)?;
    Ok(finding.map(|finding| Sample {
        values: vec![finding.kib_each],
        user_us_per_op: finding.user_us_each,
        system_us_per_op: finding.system_us_each,
    }))
}

/// The child: prints its finding as JSON, `null` if the peer does not take part.
pub(crate) fn child(args: &Args, key: &str) -> io::Result<()> {
    let peers = peer::all();
    let peer = peers.iter().find(|peer| peer.key() == key);
    let peer = peer.ok_or_else(|| io::Error::other(format!("no peer is called {key}")))?;
    let (variant, count) = (args.memory_variant, args.memory_count);
    let start = |count| match args.wants(Test::Idle) {
        true => peer.idle(variant, count),
        false => peer.pending(variant, count),
    };
    let runtime = runtime(WORKERS)?;
    let Some(kept) = runtime.block_on(start(KEPT_BEFORE))? else {
        println!("null");
        return Ok(());
    };
    std::thread::sleep(SETTLE);
    let (kib_before, cpu_before) = (resident_anonymous_kib()?, Cpu::of_this_process()?);
    let measured = runtime.block_on(start(count))?;
    let cpu = Cpu::of_this_process()?.since(cpu_before);
    std::thread::sleep(SETTLE);
    let kib = resident_anonymous_kib()?.saturating_sub(kib_before);
    let each = |total: f64| total / count as f64;
    let finding = Finding {
        kib_each: each(kib as f64),
        user_us_each: each(cpu.user.as_secs_f64() * 1e6),
        system_us_each: each(cpu.system.as_secs_f64() * 1e6),
    };
    println!("{}", serde_json::to_string(&finding)?);
    {
        let _inside = runtime.enter();
        drop((kept, measured));
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
