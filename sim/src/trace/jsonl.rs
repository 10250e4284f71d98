//! A trace as JSON Lines.

use std::io::{self, Write};

use serde::Serialize;

use super::story::Story;
use crate::world::World;

/// The first line.
#[derive(Serialize)]
struct Head<'a> {
    what: &'static str,
    seed: u64,
    /// Nanoseconds since the world began.
    end: u64,
    hosts: &'a [String],
    networks: &'a [String],
}

/// Writes what a world has kept: a line about the world, then one JSON object with `at` and `what` for each
/// [`Record`](super::Record), in order.
///
/// # Errors
/// What the writer says.
pub fn write_jsonl(world: &World, mut out: impl Write) -> io::Result<()> {
    let story = Story::of(world);
    let head = Head {
        what: "world",
        seed: story.seed,
        end: story.end,
        hosts: &story.hosts,
        networks: &story.networks,
    };
    line(&mut out, &head)?;
    for record in story.records() {
        line(&mut out, &record)?;
    }
    out.flush()
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
