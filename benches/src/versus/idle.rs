//! `idle`: resident memory of a session that is silent, client and server together.
//!
//! Each peer is measured in a child process of its own, so that no allocator holds another's leftovers. A few
//! sessions are opened first and kept, so that what is paid once does not count. Memory in the kernel (socket
//! buffers) is not part of it, nor are the program's own pages. Every session has carried one 64-byte echo.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::case::{Better, Case, Metric, Shape, Test, workers_label};
use super::peer::{self, Peer};
use super::runner::{Sample, runtime};
use super::usage::{Cpu, resident_anonymous_kib};

const WORKERS: usize = 1;
const KEPT_BEFORE: usize = 32;
const SETTLE: Duration = Duration::from_millis(600);

pub(crate) fn cases(sessions: usize) -> Vec<Case> {
    vec![Case {
        test: Test::Idle,
        shape: Shape::Idle { sessions },
        workers: WORKERS,
        op: "session set up",
        metrics: vec![Metric {
            setting: format!("{sessions} sessions, {}", workers_label(WORKERS)),
            unit: "KiB",
            better: Better::Lower,
        }],
    }]
}

#[derive(Serialize, Deserialize)]
struct Finding {
    kib_each: f64,
    user_us_each: f64,
    system_us_each: f64,
}

/// Measures in a child process.
pub(crate) fn measure(peer: &dyn Peer, variant: usize, sessions: usize) -> io::Result<Option<Sample>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--idle-child", peer.key(), "--idle-variant", &variant.to_string()])
        .args(["--sessions", &sessions.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "the idle child ended with {}",
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
pub(crate) fn child(key: &str, variant: usize, sessions: u32) -> io::Result<()> {
    let peers = peer::all();
    let peer = peers.iter().find(|peer| peer.key() == key);
    let peer = peer.ok_or_else(|| io::Error::other(format!("no peer is called {key}")))?;
    let sessions = sessions as usize;
    let runtime = runtime(WORKERS)?;
    let Some(kept) = runtime.block_on(peer.idle(variant, KEPT_BEFORE))? else {
        println!("null");
        return Ok(());
    };
    std::thread::sleep(SETTLE);
    let (kib_before, cpu_before) = (resident_anonymous_kib()?, Cpu::of_this_process()?);
    let measured = runtime.block_on(peer.idle(variant, sessions))?;
    let cpu = Cpu::of_this_process()?.since(cpu_before);
    std::thread::sleep(SETTLE);
    let kib = resident_anonymous_kib()?.saturating_sub(kib_before);
    let each = |total: f64| total / sessions as f64;
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
