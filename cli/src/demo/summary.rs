//! The table at the end.

use super::report::{Gate, Report};
use super::table::{Paint, Room, left, right};
use crate::units;
use std::time::Duration;

/// The result in a few lines.
pub fn render(report: &Report, room: Room) -> Vec<String> {
    let mut lines = vec![verdict(report, room), String::new()];
    let title = columns(["", "sent", "arrived", "lost", "doubled", "reordered"]);
    lines.push(room.paint(Paint::Dim, &title));
    let (requests, messages, stream) = (&report.requests, &report.messages, &report.stream);
    let count = units::count;
    lines.push(columns([
        "requests",
        &count(requests.sent),
        &count(requests.answered),
        &count(requests.lost),
        &count(requests.duplicated),
        "–",
    ]));
    lines.push(columns([
        "messages",
        &count(messages.sent),
        &count(messages.delivered),
        &count(messages.lost),
        &count(messages.duplicated),
        &count(messages.reordered),
    ]));
    let state = if stream.intact { "intact" } else { "damaged" };
    let stream = columns(["stream", "", &units::bytes(stream.bytes), state, "", ""]);
    lines.push(stream.trim_end().to_owned());
    lines.push(String::new());
    lines.extend(gap_lines(report, room));
    lines.push(String::new());
    if !report.gates.is_empty() {
        lines.extend(gate_lines(report, room));
        lines.push(String::new());
    }
    lines.push(format!(
        "   {} over {} in {:.1} s",
        units::counted(report.switches.len() as u64, "switch", "switches"),
        report.transports.join(", "),
        report.seconds
    ));
    lines
}

fn verdict(report: &Report, room: Room) -> String {
    if report.ok() {
        return room.paint(
            Paint::Green,
            " ✓ nothing lost, nothing doubled, nothing reordered",
        );
    }
    room.paint(Paint::Red, &format!(" ✕ {}", mishaps(report)))
}

/// What went wrong, in one line.
pub fn mishaps(report: &Report) -> String {
    let (requests, messages) = (&report.requests, &report.messages);
    let mut wrong = Vec::new();
    for (number, what) in [
        (requests.lost, "requests lost"),
        (requests.duplicated, "requests doubled"),
        (messages.lost, "messages lost"),
        (messages.duplicated, "messages doubled"),
        (messages.reordered, "messages reordered"),
    ] {
        if number > 0 {
            wrong.push(format!("{} {what}", units::count(number)));
        }
    }
    if !report.stream.intact {
        wrong.push("the stream is damaged".to_owned());
    }
    if wrong.is_empty() {
        wrong.push("some kind of traffic did not run at all".to_owned());
    }
    wrong.join(", ")
}

fn gate_lines(report: &Report, room: Room) -> Vec<String> {
    let line = |gate: &Gate| {
        let (mark, paint) = if gate.met {
            ("✓", Paint::Green)
        } else {
            ("✕", Paint::Red)
        };
        let time = |ms: f64| units::milliseconds(Duration::from_secs_f64(ms / 1e3));
        format!(
            " {} {}{} median, {}",
            room.paint(paint, mark),
            left(gate.name, 34),
            right(&time(gate.median_ms), 9),
            room.paint(Paint::Dim, &format!("promised below {} ms", gate.below_ms)),
        )
    };
    report.gates.iter().map(line).collect()
}

fn columns([name, cells @ ..]: [&str; 6]) -> String {
    cells.iter().fold(format!("   {}", left(name, 10)), |line, cell| {
        line + &right(cell, 12)
    })
}

fn gap_lines(report: &Report, room: Room) -> Vec<String> {
    let groups = report.gaps_by_cause();
    let width = groups
        .iter()
        .map(|group| group.cause.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(10, 34);
    let line = |cause: &str, switches: &str, median: &str, longest: &str| {
        let cells = [right(switches, 10), right(median, 14), right(longest, 14)];
        format!("   {}{}", left(cause, width), cells.concat())
    };
    let title = room.paint(
        Paint::Dim,
        &line("cause", "switches", "median gap", "longest gap"),
    );
    let rows = groups.iter().map(|group| {
        let (median, longest) = (
            units::milliseconds(group.median),
            units::milliseconds(group.longest),
        );
        line(
            &group.cause,
            &units::count(group.switches as u64),
            &median,
            &longest,
        )
    });
    std::iter::once(title).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::{Messages, Outage, Requests, Stream};
    use super::super::table::tests::made_up;
    use super::*;

    fn report(lost: u64) -> Report {
        let requests = Requests {
            sent: 52_311,
            answered: 52_311,
            ..Requests::default()
        };
        let messages = Messages {
            sent: 180_022,
            delivered: 180_022 - lost,
            lost,
            ..Messages::default()
        };
        let stream = Stream {
            bytes: 1_200_000_000,
            intact: true,
        };
        let view = made_up();
        Report::new(
            vec!["tcp".into(), "unix".into()],
            requests,
            messages,
            stream,
            view.switches,
            view.elapsed,
        )
        .with_outages(vec![Outage::new(
            Duration::from_millis(900),
            Duration::from_millis(30),
            Duration::from_micros(600),
        )])
    }

    fn text(report: &Report) -> String {
        render(
            report,
            Room {
                columns: 80,
                rows: 40,
                color: false,
            },
        )
        .join("\n")
    }

    #[test]
    fn the_summary_says_what_happened() {
        let text = text(&report(0));
        for want in [
            " ✓ nothing lost, nothing doubled, nothing reordered",
            "messages       180,022     180,022           0           0           0",
            "stream                     1.20 GB      intact",
            "cut every path         2       20.6 ms       33.5 ms",
            " ✓ outage: first attempt to message    0.60 ms median, promised below 50 ms",
            "14 switches over tcp, unix in 12.4 s",
        ] {
            assert!(text.contains(want), "{want:?} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_loss_is_the_first_thing_said() {
        assert!(text(&report(7)).starts_with(" ✕ 7 messages lost\n"));
    }
}
