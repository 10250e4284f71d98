//! What the tests of the command share.
#![allow(unreachable_pub)]

use std::process::Command;

/// The command, in an environment that names no proxy.
pub fn sheetbend() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheetbend"));
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command
}
