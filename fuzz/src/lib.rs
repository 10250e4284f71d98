//! What the fuzz targets of sheetbend share: bytes read as decisions, two sessions with links between them
//! ([`pair::Pair`]), an application that knows what it was promised ([`app::App`]), and a whole life of a
//! session out of bytes ([`life`]).
//!
//! The targets lie in `tests/targets/`. Each is a test: it replays the committed corpus, and some random
//! inputs. `fuzz/run` has libFuzzer drive the same functions.
#![forbid(unsafe_code)]

pub mod app;
pub mod input;
pub mod life;
pub mod pair;

// Under a fuzzer every test binary of the package is instrumented, and so needs the engine.
#[cfg(test)]
use bolero as _;
