//! The fuzz targets. Each replays its corpus under `__fuzz__/` and a few random inputs as a test; `fuzz/run`
//! has libFuzzer look for more.

#[cfg(sheetbend_canary)]
mod canaries;
mod carriers;
mod handshake;
mod hostile;
mod http;
mod join;
mod life;
mod machines;
mod outside;
mod proxies;
mod quic;
mod ranges;
mod reassembly;
mod requests;
mod sending;
mod tls;
mod webtransport;
mod wire;
mod world;
