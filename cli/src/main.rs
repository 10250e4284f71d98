//! The `sheetbend` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sheetbend_cli::main()
}
