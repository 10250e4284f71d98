//! Draws how long messages of fifty streams take over QUIC and over TCP while one packet in fifty is lost:
//! `cargo run -p sheetbend-sim --example lanes > docs/guides/lanes.svg`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fmt::Write;
use std::time::Duration;

use sheetbend_sim::scenario::{Echo, echoes, undisturbed};

const LOSS: f64 = 0.02;
const SEED: u64 = 1;
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 56.0;
const MOST_MS: f64 = 400.0;

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = [
        ("quic", 0.0, "QUIC, no loss"),
        ("quic", LOSS, "QUIC, 2 % of all packets lost"),
        ("tls", 0.0, "TLS over TCP, no loss"),
        ("tls", LOSS, "TLS over TCP, 2 % of all packets lost"),
    ];
    let total = rows.len() as f64 * HEIGHT + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" \
         font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (place, (scheme, loss, title)) in rows.into_iter().enumerate() {
        let all = echoes(scheme, SEED, loss).map_err(|failure| failure.to_string())?;
        let p99 = undisturbed(&all);
        eprintln!("{title}: {p99:?}");
        row(&mut svg, place as f64 * HEIGHT, title, &all, p99)?;
    }
    writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">each point: one message of 100 bytes there and back, by the moment it was sent; 50 \
         streams, 20 ms one way;</text><text x=\"{LEFT}\" y=\"{}\">red: a packet was lost that may have held it</text></svg>",
        total - 22.0,
        total - 7.0
    )?;
    print!("{svg}");
    Ok(())
}

fn row(svg: &mut String, top: f64, title: &str, echoes: &[Echo], p99: Duration) -> std::fmt::Result {
    let last = echoes.iter().map(|echo| millis(echo.sent)).fold(1.0, f64::max);
    let (floor, room) = (top + HEIGHT - 26.0, HEIGHT - 60.0);
    let height = |ms: f64| floor - ms.min(MOST_MS) / MOST_MS * room;
    writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}: p99 of those that lost no packet of their own \
         {:.1} ms</text>",
        top + 20.0,
        millis(p99)
    )?;
    for mark in [0.0, 100.0, 200.0, 300.0, 400.0] {
        let y = height(mark);
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"4\" y=\"{:.1}\" fill=\"#666\">{mark} ms</text>",
            WIDTH - 10.0,
            y + 4.0
        )?;
    }
    for (lost, colour) in [(false, "#1f5fa8"), (true, "#c0392b")] {
        let mut dots = std::collections::BTreeSet::new();
        for echo in echoes.iter().filter(|echo| echo.lost == lost) {
            let x = LEFT + millis(echo.sent) / last * (WIDTH - LEFT - 12.0);
            dots.insert((x.round() as i64, height(millis(echo.took)).round() as i64));
        }
        let dots: String = dots.iter().map(|(x, y)| format!("M{x} {y}h0")).collect();
        writeln!(
            svg,
            "<path d=\"{dots}\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linecap=\"round\"/>"
        )?;
    }
    Ok(())
}
