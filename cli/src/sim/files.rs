//! What is written of one world: its trace, its picture, its packets.

use crate::args::SimArgs;
use crate::failure::Failure;
use sheetbend_sim::World;
use sheetbend_sim::scenario::Setup;
use sheetbend_sim::trace::{write_jsonl, write_pcapng, write_svg, write_text};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Whether anything is to be written.
pub(super) fn wanted(args: &SimArgs) -> bool {
    args.trace.is_some() || args.svg.is_some() || args.pcap.is_some()
}

/// The setup with everything kept that is to be written.
pub(super) fn setup(setup: Setup, args: &SimArgs) -> Setup {
    Setup {
        records: args.trace.is_some() || args.svg.is_some(),
        capture: args.pcap.is_some(),
        ..setup
    }
}

type Write1 = fn(&World, &mut BufWriter<File>) -> io::Result<()>;

fn file(path: Option<&Path>, world: &World, write: Write1) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let done = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(world, &mut out)?;
        out.flush()
    });
    done.map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

/// Writes what is wanted.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write(world: &World, args: &SimArgs) -> Result<(), Failure> {
    let is_text = |path: &Path| path.extension().is_some_and(|extension| extension == "txt");
    let trace: Write1 = match args.trace.as_deref().is_some_and(is_text) {
        true => |world, out| write_text(world, out),
        false => |world, out| write_jsonl(world, out),
    };
    file(args.trace.as_deref(), world, trace)?;
    file(args.svg.as_deref(), world, |world, out| write_svg(world, out))?;
    file(args.pcap.as_deref(), world, |world, out| write_pcapng(world, out))
}
