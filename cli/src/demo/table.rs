//! The live table, as lines of text: what to show, never where.

use super::report::{Switch, gaps_by_cause, median};
use crate::failure::one_line;
use crate::units;
use console::{Alignment, measure_text_width, pad_str, truncate_str};
use std::time::Duration;

/// What a path is to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Data goes here.
    Active,
    /// Kept warm, to be taken at once.
    Standby,
    /// No progress for too long; data has moved away.
    Suspect,
    /// Gone; a replacement is on its way.
    Down,
}

impl PathState {
    fn word(self) -> &'static str {
        match self {
            PathState::Active => "active",
            PathState::Standby => "standby",
            PathState::Suspect => "suspect",
            PathState::Down => "down",
        }
    }

    fn mark(self) -> (&'static str, Paint) {
        match self {
            PathState::Active => ("●", Paint::Green),
            PathState::Standby => ("○", Paint::Cyan),
            PathState::Suspect => ("▲", Paint::Yellow),
            PathState::Down => ("✕", Paint::Red),
        }
    }
}

/// One path.
#[derive(Debug, Clone)]
pub struct PathRow {
    /// Its name in the demo, as in `tcp 1`.
    pub name: String,
    /// Where it goes, as in `127.0.0.1:40123`; shown where there is room.
    pub address: String,
    /// What it is to the session.
    pub state: PathState,
    /// The smoothed round trip, if one was measured.
    pub rtt: Option<Duration>,
    /// Bytes sent on it.
    pub sent_bytes: u64,
    /// Bytes received on it.
    pub received_bytes: u64,
    /// Both ways together.
    pub bytes_per_second: f64,
    /// What is being done to it.
    pub fault: Option<String>,
}

/// A kind of traffic, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Sent so far (for the stream: bytes).
    pub sent: u64,
    /// Answered or arrived so far.
    pub arrived: u64,
    /// Arrivals per second.
    pub per_second: f64,
    /// Lost, doubled or reordered so far; what is under way is not lost.
    pub wrong: u64,
}

/// Everything that the table shows.
#[derive(Debug, Clone)]
pub struct View {
    /// Time since the demo began.
    pub elapsed: Duration,
    /// How long the demo will take.
    pub total: Duration,
    /// The paths, in a fixed order.
    pub paths: Vec<PathRow>,
    /// The fault in force, in words.
    pub fault: Option<String>,
    /// Requests.
    pub requests: Traffic,
    /// Messages.
    pub messages: Traffic,
    /// The byte stream.
    pub stream: Traffic,
    /// All switches so far, oldest first.
    pub switches: Vec<Switch>,
}

/// The room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// Whether colours may be used.
    pub color: bool,
}

/// The colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Bold,
    Dim,
    Green,
    Cyan,
    Yellow,
    Red,
}

impl Room {
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Green => "32",
            Paint::Cyan => "36",
            Paint::Yellow => "33",
            Paint::Red => "31",
        };
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// `left` and `right` at the two ends of a line.
    fn spread(self, left: &str, right: &str) -> String {
        let used = measure_text_width(left) + measure_text_width(right);
        let space = self.columns.saturating_sub(used + 1).max(1);
        format!("{left}{}{right}", " ".repeat(space))
    }
}

pub(super) fn left(text: &str, width: usize) -> String {
    pad_str(text, width, Alignment::Left, Some("…")).into_owned()
}

pub(super) fn right(text: &str, width: usize) -> String {
    pad_str(text, width, Alignment::Right, Some("…")).into_owned()
}

/// The table in at most `room.rows` lines of at most `room.columns` characters. Of the switches, the latest
/// that there is room for are shown.
pub fn render(view: &View, room: Room) -> Vec<String> {
    let mut lines = header(view, room);
    lines.push(path_header(room));
    lines.extend(view.paths.iter().map(|path| path_line(path, room)));
    lines.push(String::new());
    lines.push(fault_line(view, room));
    lines.push(String::new());
    lines.extend(traffic_lines(view, room));
    lines.push(String::new());
    lines.push(gap_line(&view.switches, room));
    let left_over = room.rows.saturating_sub(lines.len());
    let first = view.switches.len().saturating_sub(left_over);
    lines.extend(
        view.switches[first..]
            .iter()
            .rev()
            .map(|switch| switch_line(switch, room)),
    );
    lines.truncate(room.rows);
    lines
        .iter()
        .map(|line| truncate_str(line, room.columns, "…").into_owned())
        .collect()
}

/// One line for a log, where there is no terminal to draw on.
pub fn plain_line(view: &View) -> String {
    let carrying = view.paths.iter().find(|path| path.state == PathState::Active);
    one_line(&format!(
        "{:.1} s on {}: {} requests, {} messages, {} streamed, {} wrong; {}{}",
        view.elapsed.as_secs_f64(),
        carrying.map_or("no path", |path| &path.name),
        units::count(view.requests.arrived),
        units::count(view.messages.arrived),
        units::bytes(view.stream.arrived),
        view.requests.wrong + view.messages.wrong + view.stream.wrong,
        units::counted(view.switches.len() as u64, "switch", "switches"),
        view.fault
            .as_ref()
            .map(|fault| format!("; fault: {fault}"))
            .unwrap_or_default(),
    ))
}

fn header(view: &View, room: Room) -> Vec<String> {
    let live = view
        .paths
        .iter()
        .filter(|path| path.state != PathState::Down)
        .count();
    let title = format!(
        " {} {}",
        room.paint(Paint::Bold, "sheetbend demo"),
        room.paint(
            Paint::Dim,
            &format!("one session, {live} of {} paths up", view.paths.len())
        ),
    );
    let clock = format!("{:.1} of {} s", view.elapsed.as_secs_f64(), view.total.as_secs());
    let width = room.columns.saturating_sub(2);
    let share = view.elapsed.as_secs_f64() / view.total.as_secs_f64().max(1e-9);
    let done = ((width as f64 * share) as usize).min(width);
    let bar = format!(
        " {}{}",
        room.paint(Paint::Green, &"━".repeat(done)),
        room.paint(Paint::Dim, &"─".repeat(width - done))
    );
    vec![room.spread(&title, &clock), bar]
}

const NAME: usize = 9;
const ADDRESS: usize = 30;
const STATE: usize = 9;
const NUMBER: usize = 10;
/// From this width on, addresses are shown.
const WIDE: usize = 100;

fn path_columns(room: Room, cells: [&str; 7], fault: &str) -> String {
    let [name, address, state, rtt, sent, received, rate] = cells;
    let mut line = left(name, NAME);
    if room.columns >= WIDE {
        line += &left(address, ADDRESS - 1);
        line.push(' ');
    }
    line += &left(state, STATE);
    for number in [rtt, sent, received] {
        line += &right(number, NUMBER);
    }
    line + &right(rate, NUMBER + 2) + "   " + fault
}

fn path_header(room: Room) -> String {
    let cells = ["path", "address", "state", "rtt", "sent", "received", "rate"];
    room.paint(Paint::Dim, &format!("   {}", path_columns(room, cells, "fault")))
}

fn path_line(path: &PathRow, room: Room) -> String {
    let (mark, paint) = path.state.mark();
    let rtt = path.rtt.map_or_else(|| "–".to_owned(), units::milliseconds);
    let rate = format!("{}/s", units::bytes(path.bytes_per_second as u64));
    let state = room.paint(paint, path.state.word());
    let cells = [
        path.name.as_str(),
        &path.address,
        &state,
        &rtt,
        &units::bytes(path.sent_bytes),
        &units::bytes(path.received_bytes),
        &rate,
    ];
    let fault = path.fault.as_deref().unwrap_or_default();
    format!(
        " {} {}",
        room.paint(paint, mark),
        path_columns(room, cells, &room.paint(Paint::Yellow, fault))
    )
}

fn fault_line(view: &View, room: Room) -> String {
    let fault = match &view.fault {
        Some(fault) => room.paint(Paint::Yellow, fault),
        None => room.paint(Paint::Dim, "none"),
    };
    format!("   {}{fault}", left("fault now", 12))
}

fn traffic_lines(view: &View, room: Room) -> [String; 3] {
    let count = |traffic: &Traffic| (units::count(traffic.sent), units::count(traffic.arrived));
    let per_second = |traffic: &Traffic| format!("{}/s", units::count(traffic.per_second as u64));
    let size = |traffic: &Traffic| (units::bytes(traffic.sent), units::bytes(traffic.arrived));
    let bytes_per_second = |traffic: &Traffic| format!("{}/s", units::bytes(traffic.per_second as u64));
    let line = |name, (sent, arrived): (String, String), verb, rate: String, wrong| {
        let verdict = match wrong {
            0 => room.paint(Paint::Green, "✓ nothing wrong"),
            wrong => room.paint(Paint::Red, &format!("✕ {} wrong", units::count(wrong))),
        };
        let (sent, arrived, rate) = (right(&sent, 10), right(&arrived, 11), right(&rate, 12));
        format!(
            "   {}{sent} sent {arrived} {}{rate}   {verdict}",
            left(name, 10),
            left(verb, 8)
        )
    };
    [
        line(
            "requests",
            count(&view.requests),
            "answered",
            per_second(&view.requests),
            view.requests.wrong,
        ),
        line(
            "messages",
            count(&view.messages),
            "arrived",
            per_second(&view.messages),
            view.messages.wrong,
        ),
        line(
            "stream",
            size(&view.stream),
            "arrived",
            bytes_per_second(&view.stream),
            view.stream.wrong,
        ),
    ]
}

fn gap_line(switches: &[Switch], room: Room) -> String {
    let number = units::counted(switches.len() as u64, "switch", "switches");
    if switches.is_empty() {
        return format!("   {}", room.paint(Paint::Bold, &number));
    }
    let groups = gaps_by_cause(switches);
    let causes: Vec<_> = groups
        .iter()
        .map(|group| format!("{} {}", group.cause, group.switches))
        .collect();
    let mut gaps: Vec<_> = switches.iter().map(Switch::gap).collect();
    format!(
        "   {}  median gap {}  {}",
        room.paint(Paint::Bold, &number),
        units::milliseconds(median(&mut gaps)),
        room.paint(Paint::Dim, &causes.join(" · ")),
    )
}

fn switch_line(switch: &Switch, room: Room) -> String {
    format!(
        "   {} s  {} → {} {} {} gap",
        right(&format!("{:.1}", switch.at.as_secs_f64()), 5),
        right(&switch.from, NAME),
        left(&switch.to, NAME),
        left(&switch.cause, 22),
        room.paint(Paint::Bold, &right(&units::milliseconds(switch.gap()), 9)),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A view with something in every corner.
    pub(in crate::demo) fn made_up() -> View {
        let path = |name: &str, address: &str, state, rtt_us, fault: Option<&str>| PathRow {
            name: name.to_owned(),
            address: address.to_owned(),
            state,
            rtt: (rtt_us > 0).then(|| Duration::from_micros(rtt_us)),
            sent_bytes: 128_400_000,
            received_bytes: 2_100_000,
            bytes_per_second: 48_300_000.0,
            fault: fault.map(str::to_owned),
        };
        let causes = ["cut", "reset", "stall", "one-way stall", "cut every path"];
        let switch = |n: u64| {
            let (from, to) = if n.is_multiple_of(2) {
                ("tcp 1", "unix 2")
            } else {
                ("unix 2", "tcp 1")
            };
            let gap = Duration::from_micros(1_300 + n * n * 397);
            Switch::new(
                Duration::from_millis(900 * n),
                from,
                to,
                causes[n as usize % 5],
                gap,
            )
        };
        View {
            elapsed: Duration::from_millis(12_400),
            total: Duration::from_secs(40),
            paths: vec![
                path("tcp 1", "127.0.0.1:40123", PathState::Active, 120, None),
                path(
                    "tcp 2",
                    "127.0.0.1:40124",
                    PathState::Suspect,
                    31_000,
                    Some("stalled"),
                ),
                path(
                    "unix 1",
                    "/tmp/sheetbend-x/1.sock",
                    PathState::Standby,
                    95,
                    Some("10 ms later"),
                ),
                path(
                    "unix 2",
                    "/tmp/sheetbend-x/2.sock",
                    PathState::Down,
                    0,
                    Some("refused"),
                ),
            ],
            fault: Some("tcp 2 falls silent without closing".to_owned()),
            requests: Traffic {
                sent: 12_345,
                arrived: 12_344,
                per_second: 990.0,
                wrong: 0,
            },
            messages: Traffic {
                sent: 1_234_567,
                arrived: 1_234_566,
                per_second: 4_012.0,
                wrong: 3,
            },
            stream: Traffic {
                sent: 1_500_000_000,
                arrived: 1_499_000_000,
                per_second: 1.2e8,
                wrong: 0,
            },
            switches: (0..14).map(switch).collect(),
        }
    }

    fn room(columns: usize, rows: usize, color: bool) -> Room {
        Room { columns, rows, color }
    }

    #[test]
    fn the_table_fits_whatever_room_there_is() {
        for (columns, rows) in [(0, 0), (1, 1), (20, 5), (80, 23), (120, 39), (300, 100)] {
            for color in [false, true] {
                let lines = render(&made_up(), room(columns, rows, color));
                assert!(lines.len() <= rows);
                for line in &lines {
                    assert!(measure_text_width(line) <= columns, "{columns}: {line}");
                    assert!(color || !line.contains('\x1b'));
                }
            }
        }
    }

    #[test]
    fn everything_that_matters_is_there_on_a_small_terminal() {
        let text = render(&made_up(), room(80, 23, false)).join("\n");
        for want in [
            "12.4 of 40 s",
            "● tcp 1    active      0.12 ms    128 MB   2.10 MB   48.3 MB/s",
            "▲ tcp 2    suspect     31.0 ms    128 MB   2.10 MB   48.3 MB/s   stalled",
            "✕ unix 2   down              –    128 MB   2.10 MB   48.3 MB/s   refused",
            "tcp 2 falls silent without closing",
            "12,345 sent      12,344 answered       990/s   ✓ nothing wrong",
            "✕ 3 wrong",
            "14 switches",
            "cut 3 · reset 3 · stall 3",
            "11.7 s     unix 2 → tcp 1     one-way stall",
        ] {
            assert!(text.contains(want), "{want:?} is not in\n{text}");
        }
        assert!(!text.contains("127.0.0.1"));
        assert!(
            render(&made_up(), room(120, 39, false))
                .join("\n")
                .contains("127.0.0.1:40123")
        );
    }

    #[test]
    fn a_log_line_is_one_line() {
        let line = plain_line(&made_up());
        assert_eq!(
            line,
            "12.4 s on tcp 1: 12,344 requests, 1,234,566 messages, 1.50 GB streamed, 3 wrong; 14 switches; \
             fault: tcp 2 falls silent without closing"
        );
    }
}
