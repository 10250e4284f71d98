//! No part of tokio is below this crate, whichever of its features are on.

use std::process::Command;

/// The crates below this one with these features, as cargo says.
fn tree(features: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--locked",
        "--offline",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ]);
    cargo.args([
        "--target",
        "all",
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ]);
    let output = cargo.args(features).output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

#[test]
fn tokio_is_not_in_the_tree() {
    for features in [&[][..], &["--no-default-features"], &["--all-features"]] {
        let tree = tree(features);
        assert!(tree.contains("async-io "), "{features:?}: {tree}");
        let found: Vec<&str> = tree.lines().filter(|line| line.starts_with("tokio")).collect();
        assert!(found.is_empty(), "{features:?}: {found:?}");
    }
}
