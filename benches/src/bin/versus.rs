//! `versus`: sheetbend side by side with peers. See [`sheetbend_benches::versus`].

fn main() -> std::process::ExitCode {
    sheetbend_benches::versus::main()
}
