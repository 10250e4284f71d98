//! The README's program is the example that is compiled and run.

const README: &str = include_str!("../../../README.md");
const HELLO: &str = include_str!("../../examples/hello.rs");

/// The only block of Rust on the page.
fn code_of(page: &str) -> &str {
    let mut blocks = page.split("```rust\n").skip(1);
    let block = blocks.next().expect("the page has a block of Rust");
    assert!(
        blocks.next().is_none(),
        "the page has more than one block of Rust"
    );
    block.split_once("```").expect("the block ends").0
}

#[test]
fn the_readme_shows_the_example() {
    // Title and lint attribute stand in front of the first blank line, and only in the file.
    let (_, program) = HELLO.split_once("\n\n").expect("the example has a header");
    assert_eq!(code_of(README), program);
}
