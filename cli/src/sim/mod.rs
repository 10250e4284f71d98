//! `sheetbend sim`: sessions in simulated worlds.

mod batch;
mod files;
mod replay;

use crate::args::SimArgs;
use crate::failure::Failure;
use crate::output;
use sheetbend_sim::scenario;

/// Does what the flags say.
///
/// # Errors
/// A run failed.
pub fn run(args: &SimArgs) -> Result<(), Failure> {
    if args.list {
        return list();
    }
    if let Some(token) = &args.replay {
        return replay::replay(token, args);
    }
    if let Some(token) = &args.shrink {
        return replay::shrink(token, args);
    }
    match args.scenario {
        Some(scenario) => batch::run(scenario, args),
        None => Err(Failure::usage("nothing to do (see 'sheetbend sim --help')")),
    }
}

fn list() -> Result<(), Failure> {
    let all = scenario::all();
    let width = all.iter().map(|one| one.name.len()).max().unwrap_or(0);
    all.iter()
        .try_for_each(|one| output::line(&format!("{:<width$}  {}", one.name, one.about)))
}

/// An object as a line of JSON.
fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
    output::line(&text)
}
