//! What a link carried over time: one direction upwards, the other downwards, and what was dropped at the rims.

use super::canvas::{Anchor, fit};
use super::scene::Chart;
use super::{Drawing, LEFT, RIGHT, SMALL, WIDTH};
use crate::trace::story::Story;
use crate::trace::words::{rate, round_up};

/// The height of one direction.
const HALF: f64 = 34.0;
/// The width of one column, in pixels.
const COLUMN: f64 = 2.0;

/// Bits per second in each column, and whether anything was dropped in it.
struct Columns {
    bits: Vec<f64>,
    drops: Vec<u32>,
}

fn columns(story: &Story, link: Option<usize>, end: f64) -> Columns {
    let count = ((WIDTH - LEFT - RIGHT) / COLUMN) as usize;
    let width = end / count as f64;
    let mut columns = Columns {
        bits: vec![0.0; count],
        drops: vec![0; count],
    };
    let bins = link.and_then(|link| story.traffic.links.get(link));
    for bin in bins.into_iter().flatten() {
        let from = (bin.index * story.traffic.width) as f64;
        let to = (from + story.traffic.width as f64).min(end);
        let first = ((from / width) as usize).min(count - 1);
        let last = ((to / width).ceil() as usize).clamp(first + 1, count);
        for column in first..last {
            let begin = from.max(column as f64 * width);
            let share = (to.min((column + 1) as f64 * width) - begin).max(0.0) / (to - from).max(1.0);
            columns.bits[column] += bin.carried as f64 * 8.0 * share / (width / 1e9);
        }
        columns.drops[first] += bin.drops.total();
    }
    columns
}

pub(super) fn draw(drawing: &mut Drawing, story: &Story, view: &Chart) {
    let end = drawing.scale.end;
    let both = view.links.map(|link| columns(story, link, end));
    let most = both
        .iter()
        .flat_map(|one| &one.bits)
        .fold(0.0_f64, |a, b| a.max(*b));
    let scale = round_up(most);
    drawing.y += 26.0;
    let top = drawing.y;
    let zero = top + HALF;
    let (there, back) = &view.ends;
    let front = &mut drawing.front;
    front.text(
        "head",
        (16.0, zero - 8.0),
        Anchor::Start,
        &fit(&view.network, 12.0, 100.0),
    );
    let names = [format!("↑ {there} → {back}"), format!("↓ {back} → {there}")];
    let wide = LEFT - 36.0;
    front.text(
        "theretext",
        (16.0, zero + 6.0),
        Anchor::Start,
        &fit(&names[0], SMALL, wide),
    );
    if view.links[1].is_some() {
        front.text(
            "backtext",
            (16.0, zero + 20.0),
            Anchor::Start,
            &fit(&names[1], SMALL, wide),
        );
    }
    for (y, text) in [
        (top, rate(scale)),
        (zero, "0".to_owned()),
        (zero + HALF, rate(scale)),
    ] {
        front.text("small", (LEFT - 7.0, y + 3.5), Anchor::End, &text);
        front.line("axis", (LEFT - 4.0, y), (LEFT, y));
    }
    for y in [top, zero + HALF] {
        drawing.back.line("grid", (LEFT, y), (WIDTH - RIGHT, y));
    }
    for (index, (one, class)) in both.iter().zip(["there", "back"]).enumerate() {
        let sign = if index == 0 { -1.0 } else { 1.0 };
        let mut points = vec![(LEFT, zero)];
        let mut flat = true;
        for (column, bits) in one.bits.iter().enumerate() {
            let x = LEFT + column as f64 * COLUMN;
            // What stands still needs no points.
            if *bits == 0.0 && flat {
                continue;
            }
            let y = zero + sign * (bits / scale).min(1.0) * HALF;
            if flat {
                points.push((x, zero));
            }
            flat = *bits == 0.0;
            points.push((x, y));
            points.push((x + COLUMN, y));
        }
        points.push((points[points.len() - 1].0, zero));
        drawing.front.area(class, &points);
        for (column, count) in one.drops.iter().enumerate().filter(|(_, count)| **count > 0) {
            let x = LEFT + column as f64 * COLUMN;
            let y = if index == 0 { top - 6.0 } else { zero + HALF };
            let title = format!("{count} dropped");
            drawing.front.rect("drop", (x, y), (COLUMN, 6.0), &title);
        }
    }
    drawing.front.line("zero", (LEFT, zero), (WIDTH - RIGHT, zero));
    drawing.y = zero + HALF + 4.0;
}
