//! A trace as a picture: time from left to right, faults as bands behind everything, a lane for each path of each
//! session, and what the links carried.

mod canvas;
mod chart;
mod lanes;
mod scene;

use std::io::{self, Write};

use canvas::{Anchor, Canvas, fit, width_of};
use scene::{Band, Span};

use super::record::What;
use super::story::Story;
use super::words::{length, round_up, short};
use crate::world::World;

const WIDTH: f64 = 1280.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 34.0;
/// Where the lanes begin if there is no fault.
const TOP: f64 = 96.0;
const LABEL_ROW: f64 = 17.0;
/// Rows of labels; what fits in none of them has its words under the pointer only.
const MAX_LABEL_ROWS: usize = 8;
/// Sessions that are drawn.
const MAX_SESSIONS: usize = 12;
/// Charts that are drawn.
const MAX_CHARTS: usize = 10;
const SMALL: f64 = 10.5;

const STYLE: &str = "\
text{font-family:'Inter','Helvetica Neue','DejaVu Sans',Arial,sans-serif;font-size:11px;fill:#27313d}\
.title{font-size:17px;font-weight:600}.sub{font-size:11.5px;fill:#5c6875}\
.head{font-size:12px;font-weight:600}.small{font-size:10.5px;fill:#5c6875}\
.paper{fill:#fff}.plot{fill:#f7f8fa}\
.grid{stroke:#dfe3e8;stroke-width:1}.axis{stroke:#8a94a0;stroke-width:1}.zero{stroke:#aab3bd;stroke-width:1}\
.band{fill:#d43d3d;fill-opacity:.10}.edge{stroke:#d43d3d;stroke-opacity:.45;stroke-width:1;stroke-dasharray:3 3}\
.instant{stroke:#d43d3d;stroke-width:1.4;stroke-dasharray:4 2}\
.fault{font-size:10.5px;fill:#a32626;font-weight:500}.chip{fill:#f6cfcf}\
.failed{fill:#a32626}.failedtext{font-size:10.5px;fill:#fff;font-weight:600}\
.active{fill:#1f9d61}.standby{fill:#a9cdf0}.suspect{fill:#f2a516}.handshake{fill:#cfd4da}.closing{fill:#d9c7ea}\
.connecting{fill:#b7bec6}.connected{fill:#475569}.reconnecting{fill:#d43d3d}.disconnected{fill:#e4b7b7}\
.closed{fill:#475569}\
.move{stroke:#111827;stroke-width:1.6}.dot{fill:#111827;stroke:#fff;stroke-width:1.2}\
.cause{font-size:10.5px;font-weight:600;fill:#111827;paint-order:stroke;stroke:#fff;stroke-opacity:.8;stroke-width:3px}\
.cross{stroke:#a32626;stroke-width:1.8}.why{font-size:10px;fill:#a32626}\
.there{fill:#3a6fb5;fill-opacity:.82}.back{fill:#8a63b8;fill-opacity:.82}\
.theretext{font-size:10.5px;fill:#2d5a97}.backtext{font-size:10.5px;fill:#6f4b9b}\
.drop{fill:#d43d3d}.note{fill:#0f766e}.notetext{font-size:10.5px;fill:#0f766e}";

/// From time to place.
#[derive(Clone, Copy)]
struct Scale {
    end: f64,
}

impl Scale {
    fn x(self, at: u64) -> f64 {
        LEFT + (at as f64 / self.end).min(1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// The place and width of something that lasts; it can always be seen.
    fn span(self, span: Span) -> (f64, f64) {
        let from = self.x(span.from);
        (from, (self.x(span.to) - from).max(0.6))
    }
}

/// A picture in the making: what lies behind, what is before it, and how far down it goes.
struct Drawing {
    back: Canvas,
    front: Canvas,
    scale: Scale,
    y: f64,
}

/// Writes what a world has kept as a picture in SVG, 1280 pixels wide.
///
/// # Errors
/// What the writer says.
pub fn write_svg(world: &World, mut out: impl Write) -> io::Result<()> {
    let picture = draw(&Story::of(world));
    out.write_all(picture.as_bytes())?;
    out.flush()
}

fn draw(story: &Story) -> String {
    let all = scene::sessions(story);
    let there_are = all.len();
    let sessions = scene::most_eventful(all, MAX_SESSIONS);
    let charts = scene::charts(story);
    let mut drawing = Drawing {
        back: Canvas::default(),
        front: Canvas::default(),
        scale: Scale {
            end: story.end.max(1) as f64,
        },
        y: TOP,
    };
    title(&mut drawing.front, story, there_are);
    legend(&mut drawing.front);
    let labels = drawing.labels(labels_of(story));
    let top = drawing.y;
    for view in &sessions {
        lanes::draw(&mut drawing, view);
    }
    drawing.more(there_are, MAX_SESSIONS, "ends of sessions, with less to see");
    for view in charts.iter().take(MAX_CHARTS) {
        chart::draw(&mut drawing, story, view);
    }
    drawing.more(charts.len(), MAX_CHARTS, "links, with less on them");
    drawing.notes(story);
    drawing.axis(story, top);
    let bottom = drawing.y;
    drawing.shade(&labels, top, bottom);
    let height = bottom + 44.0;
    let mut all = Canvas::default();
    all.rect("paper", (0.0, 0.0), (WIDTH, height), "");
    all.rect("plot", (LEFT, top), (WIDTH - LEFT - RIGHT, bottom - top), "");
    let Drawing { back, front, .. } = drawing;
    all.append(back);
    all.append(front);
    all.finish(STYLE, WIDTH, height)
}

fn title(canvas: &mut Canvas, story: &Story, sessions: usize) {
    canvas.text(
        "title",
        (16.0, 30.0),
        Anchor::Start,
        &format!("A simulated world, seed {}", story.seed),
    );
    let dropped: u64 = story
        .traffic
        .links
        .iter()
        .flatten()
        .map(|bin| u64::from(bin.drops.total()))
        .sum();
    let packets: u64 = story
        .traffic
        .links
        .iter()
        .flatten()
        .map(|bin| u64::from(bin.packets))
        .sum();
    let text = format!(
        "{} simulated · {} hosts · {} networks · {sessions} ends of sessions · {packets} packets, {dropped} dropped",
        length(story.end),
        story.hosts.len(),
        story.networks.len(),
    );
    canvas.text("sub", (16.0, 49.0), Anchor::Start, &text);
}

fn legend(canvas: &mut Canvas) {
    let mut x = 16.0;
    let y = 72.0;
    let boxes = [
        ("active", "active path"),
        ("standby", "standby"),
        ("suspect", "suspect"),
        ("handshake", "handshake"),
        ("closing", "closing"),
        ("connected", "session connected"),
        ("reconnecting", "reconnecting"),
        ("band", "fault"),
        ("there", "sent one way"),
        ("back", "the other way"),
        ("drop", "packets dropped"),
    ];
    for (class, name) in boxes {
        let height = match class {
            "connected" | "reconnecting" => 4.0,
            "drop" => 6.0,
            _ => 10.0,
        };
        canvas.rect(class, (x, y - 4.0 - height / 2.0), (16.0, height), "");
        canvas.text("small", (x + 21.0, y), Anchor::Start, name);
        x += 36.0 + width_of(name, SMALL);
    }
    canvas.line("move", (x + 6.0, y - 11.0), (x + 6.0, y + 2.0));
    canvas.circle("dot", (x + 6.0, y), 3.4);
    canvas.text("small", (x + 15.0, y), Anchor::Start, "data moved: cause, gap");
}

/// A band with the place of its label.
struct Label {
    span: Span,
    text: String,
    row: usize,
    shaded: bool,
    failed: bool,
}

fn labels_of(story: &Story) -> Vec<Label> {
    let plain = |band: Band| Label {
        span: band.span,
        text: fit(&band.label, SMALL, 620.0),
        row: 0,
        shaded: band.shaded,
        failed: false,
    };
    let mut all: Vec<Label> = scene::bands(story).into_iter().map(plain).collect();
    all.extend(story.log.iter().filter_map(|record| match &record.what {
        What::Failure { text } => Some(Label {
            span: Span {
                from: record.at,
                to: record.at,
            },
            text: fit(&format!("FAILED {text}"), SMALL, 900.0),
            row: 0,
            shaded: true,
            failed: true,
        }),
        _ => None,
    }));
    all
}

impl Drawing {
    /// Where a label's words begin, and where its row is free again.
    fn extent(&self, label: &Label) -> (f64, f64) {
        let wide = width_of(&label.text, SMALL) + 8.0;
        let (x, width) = self.scale.span(label.span);
        let words = x.min(WIDTH - 8.0 - wide);
        (words, (x + width).max(words + wide) + 6.0)
    }

    /// Finds each label a row in which it has room, and makes room for the rows.
    fn labels(&mut self, mut labels: Vec<Label>) -> Vec<Label> {
        let mut rows: Vec<f64> = Vec::new();
        for label in &mut labels {
            let (begin, end) = self.extent(label);
            let free = rows.iter().position(|taken| *taken <= begin);
            label.row = free.unwrap_or(rows.len());
            if let Some(taken) = rows.get_mut(label.row) {
                *taken = end;
            } else if rows.len() < MAX_LABEL_ROWS {
                rows.push(end);
            }
        }
        self.y += rows.len() as f64 * LABEL_ROW;
        labels
    }

    /// Shades the times of faults, and writes what they were.
    fn shade(&mut self, labels: &[Label], top: f64, bottom: f64) {
        let mut shaded_until = 0.0_f64;
        for label in labels {
            let (x, width) = self.scale.span(label.span);
            let shown = label.row < MAX_LABEL_ROWS;
            let start = if shown {
                TOP - 4.0 + label.row as f64 * LABEL_ROW
            } else {
                top
            };
            let lasts = label.span.from < label.span.to;
            if !lasts {
                self.back.line("instant", (x, start), (x, bottom));
            } else if label.shaded {
                // Each moment is shaded once, however much is wrong then.
                let from = x.max(shaded_until);
                shaded_until = shaded_until.max(x + width);
                if shaded_until > from {
                    let size = (shaded_until - from, bottom - top);
                    self.back.rect("band", (from, top), size, "");
                }
                self.back.line("edge", (x, start), (x, bottom));
                self.back.line("edge", (x + width, top), (x + width, bottom));
            }
            if shown {
                let (words, end) = self.extent(label);
                let (bar, text) = if label.failed {
                    ("failed", "failedtext")
                } else {
                    ("chip", "fault")
                };
                let (x, width) = if label.failed {
                    (words, end - words - 6.0)
                } else {
                    (x, width)
                };
                if lasts || label.failed {
                    let size = (width, LABEL_ROW - 4.0);
                    self.front.rect(bar, (x, start), size, &label.text);
                }
                let place = (words + 5.0, start + 10.0);
                self.front.text(text, place, Anchor::Start, &label.text);
            }
        }
    }

    fn more(&mut self, there_are: usize, drawn: usize, what: &str) {
        if there_are > drawn {
            self.y += 16.0;
            let text = format!("and {} more {what}", there_are - drawn);
            self.front.text("small", (16.0, self.y), Anchor::Start, &text);
            self.y += 6.0;
        }
    }

    /// What programs said.
    fn notes(&mut self, story: &Story) {
        const ROWS: usize = 3;
        let notes = story.log.iter().filter_map(|record| match &record.what {
            What::Note { host, text } => Some((record.at, host, text)),
            _ => None,
        });
        let notes: Vec<(u64, &String, &String)> = notes.collect();
        if notes.is_empty() {
            return;
        }
        self.y += 18.0;
        self.front
            .text("head", (16.0, self.y + 9.0), Anchor::Start, "notes");
        let mut rows = [0.0_f64; ROWS];
        let mut used = 0;
        for (at, host, text) in notes {
            let text = fit(&format!("{host}: {text}"), SMALL, 420.0);
            let mark = self.scale.x(at);
            let wide = width_of(&text, SMALL) + 10.0;
            let turned = mark + wide > WIDTH - 8.0;
            let x = if turned { mark - wide } else { mark };
            self.front.rect("note", (mark - 0.6, self.y), (1.2, 11.0), &text);
            let Some(row) = rows.iter().position(|taken| *taken <= x) else {
                continue;
            };
            rows[row] = x + wide + 4.0;
            used = used.max(row + 1);
            let y = self.y + 9.0 + row as f64 * 14.0;
            let (x, anchor) = if turned {
                (mark - 4.0, Anchor::End)
            } else {
                (mark + 4.0, Anchor::Start)
            };
            self.front.text("notetext", (x, y), anchor, &text);
        }
        self.y += used.max(1) as f64 * 14.0;
    }

    /// The axis of time, with lines up to the top.
    fn axis(&mut self, story: &Story, top: f64) {
        self.y += 12.0;
        let bottom = self.y;
        let (unit, nanos) = match story.end {
            0..2_000_000 => ("µs", 1e3),
            2_000_000..2_000_000_000 => ("ms", 1e6),
            2_000_000_000..600_000_000_000 => ("s", 1e9),
            600_000_000_000..36_000_000_000_000 => ("min", 6e10),
            36_000_000_000_000..864_000_000_000_000 => ("h", 3.6e12),
            _ => ("d", 8.64e13),
        };
        let step = round_up(self.scale.end / nanos / 14.0);
        let count = (self.scale.end / nanos / step).floor() as u64;
        for index in 0..=count {
            let value = index as f64 * step;
            let x = self.scale.x((value * nanos) as u64);
            self.back.line("grid", (x, top), (x, bottom));
            self.front.line("axis", (x, bottom), (x, bottom + 4.0));
            let text = short(value);
            self.front
                .text("small", (x, bottom + 16.0), Anchor::Middle, &text);
        }
        self.front.line("axis", (LEFT, bottom), (WIDTH - RIGHT, bottom));
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let text = format!("simulated time, {unit}");
        self.front
            .text("sub", (middle, bottom + 33.0), Anchor::Middle, &text);
    }
}
