//! Command line.

use std::time::Duration;

use clap::Parser;

use super::case::Test;

/// Runs sheetbend side by side with its peers: same process, same payloads, interleaved rounds.
#[derive(Debug, Parser)]
#[command(name = "versus")]
pub(crate) struct Args {
    /// Only these tests, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Test>,
    /// Only these peers, separated by commas ("ours" always runs).
    #[arg(long, value_delimiter = ',', value_parser = super::peer::keys())]
    pub(crate) peers: Option<Vec<String>>,
    /// Rounds; the report gives medians with the least and the greatest.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Worker threads for rps, large, items, bulk and streams (rtt runs with one and with two).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    /// Sessions of the idle test.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub(crate) sessions: u32,
    /// Print one JSON object on standard output and nothing else there.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure the memory of one peer in this process (the tests of memory start themselves so).
    #[arg(long, hide = true)]
    pub(crate) memory_child: Option<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) memory_variant: usize,
    #[arg(long, hide = true, default_value_t = 1000)]
    pub(crate) memory_count: usize,
}

impl Args {
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn wants(&self, test: Test) -> bool {
        self.only.is_empty() || self.only.contains(&test)
    }

    pub(crate) fn wants_peer(&self, key: &str) -> bool {
        key == super::ours::KEY
            || self
                .peers
                .as_ref()
                .is_none_or(|keys| keys.iter().any(|k| k == key))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0.05 to 600".into()),
    }
}
