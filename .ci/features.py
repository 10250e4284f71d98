#!/usr/bin/env python3
"""Prints the tables of docs/guides/features.md: what each feature is, and what each adapter costs.

    .ci/features.py            feature flags and dependency trees
    .ci/features.py --build    also builds a small program on each, from nothing: minutes of CPU time

The second wants a machine with little else to do, although it counts CPU time and not time by the wall clock.
"""

import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES = ["core", "runtime", "runtime-tokio", "runtime-smol"]

TOKIO = """
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = sheetbend_tokio::bind("tcp://127.0.0.1:0").await?;
    let session = sheetbend_tokio::connect(&server.addresses()[0]).await?;
    let peer = server.accept().await.ok_or("stopped")?;
    tokio::spawn(async move { while let Ok(request) = peer.accept_request().await { request.respond("hello"); } });
    println!("{:?}", session.request("greet", "").await?);
    Ok(())
}
"""

SMOL = """
use std::sync::Arc;
use sheetbend_smol::{Client, Runtime, Server, SmolRuntime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let executor = Arc::new(async_executor::Executor::new());
    let tasks = executor.clone();
    let runtime: Arc<dyn Runtime> = Arc::new(SmolRuntime::new(move |task| tasks.spawn(task).detach()));
    async_io::block_on(executor.run(async {
        let server = Server::builder().listen("tcp://127.0.0.1:0")?.bind(runtime.clone()).await?;
        let session = Client::builder().endpoint(&server.addresses()[0])?.connect(runtime.clone()).await?;
        let peer = server.accept().await.ok_or("stopped")?;
        runtime.spawn(Box::pin(async move {
            while let Ok(request) = peer.accept_request().await { request.respond("hello"); }
        }));
        println!("{:?}", session.request("greet", "").await?);
        Ok(())
    }))
}
"""

TOKIO_NEEDS = 'tokio = { version = "1", features = ["macros", "rt-multi-thread"] }'
SMOL_NEEDS = 'async-executor = "1"\nasync-io = "2"'

# Title, crate, whether its default features are on, the program, and what the program needs besides.
PROGRAMS = [
    ("tokio", "runtime-tokio", True, TOKIO, TOKIO_NEEDS),
    ("tokio, TCP and Unix sockets alone", "runtime-tokio", False, TOKIO, TOKIO_NEEDS),
    ("smol", "runtime-smol", True, SMOL, SMOL_NEEDS),
    ("smol, TCP and Unix sockets alone", "runtime-smol", False, SMOL, SMOL_NEEDS),
]


def run(*command, **options):
    done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
    return done.stdout


def flags():
    """Crate, feature, whether it is on by default, and the comment above it."""
    for crate in CRATES:
        text = (ROOT / crate / "Cargo.toml").read_text()
        name = re.search(r'^name = "(.*)"', text, re.M)[1]
        section = re.search(r"^\[features\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)[1]
        default = re.search(r"^default = \[(.*)\]", section, re.M)[1]
        comment = []
        for line in section.splitlines():
            if line.startswith("#"):
                comment.append(line.lstrip("# "))
            elif (feature := re.match(r"([\w-]+) = \[", line)) and feature[1] != "default":
                yield name, feature[1], f'"{feature[1]}"' in default, " ".join(comment)
                comment = []
            elif not line.strip():
                comment = []


def tree(crate, default):
    command = ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    command += ["--manifest-path", str(ROOT / crate / "Cargo.toml")]
    command += [] if default else ["--no-default-features"]
    lines = {line.split(" (")[0] for line in run(*command, cwd=ROOT).splitlines() if line}
    return {line for line in lines if not line.startswith("sheetbend")}


def build(crate, default, program, needs):
    """Size of the stripped program in KiB, and seconds of CPU time from nothing to the program."""
    name = re.search(r'^name = "(.*)"', (ROOT / crate / "Cargo.toml").read_text(), re.M)[1]
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        (folder / "src").mkdir()
        (folder / "src/main.rs").write_text(program)
        (folder / "Cargo.toml").write_text(
            f'[package]\nname = "cost"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n{needs}\n'
            f'{name} = {{ path = "{ROOT / crate}", default-features = {str(default).lower()} }}\n'
            '[profile.release]\nstrip = true\n[workspace]\n'
        )
        shutil.copy(ROOT / "Cargo.lock", folder / "Cargo.lock")
        environment = dict(os.environ, CARGO_TARGET_DIR=str(folder / "target"))
        run("cargo", "fetch", cwd=folder, env=environment)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("cargo", "build", "--release", "--quiet", cwd=folder, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        binary = folder / "target/release/cost"
        run(str(binary))
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return binary.stat().st_size // 1024, round(seconds)
    finally:
        shutil.rmtree(folder)


def main():
    measure = "--build" in sys.argv[1:]
    print("| crate | feature | by default | what it adds |\n|---|---|---|---|")
    for crate, feature, default, comment in flags():
        print(f"| `{crate}` | `{feature}` | {'yes' if default else ''} | {comment} |")
    head = "| a program on | crates below it |"
    print("\n" + head + (" program, KiB | CPU time to build, s |" if measure else ""))
    print("|---|---:|" + ("---:|---:|" if measure else ""))
    for title, crate, default, program, needs in PROGRAMS:
        row = f"| {title} | {len(tree(crate, default))} |"
        if measure:
            size, seconds = build(crate, default, program, needs)
            row += f" {size:,} | {seconds} |"
        print(row)


main()
