//! A session: its state, a lane for each path, and where its data moved.

use super::canvas::{Anchor, fit, width_of};
use super::scene::{Lane, SessionView};
use super::{Drawing, LEFT, RIGHT, SMALL, WIDTH};
use crate::trace::record::PathPhase;

const LANE: f64 = 22.0;
const BAR: f64 = 14.0;
/// Lanes of one session that are drawn.
const MAX_LANES: usize = 12;

fn class(phase: PathPhase) -> &'static str {
    match phase {
        PathPhase::Active => "active",
        PathPhase::Standby => "standby",
        PathPhase::Suspect => "suspect",
        PathPhase::Handshake => "handshake",
        PathPhase::Closing | PathPhase::Down => "closing",
    }
}

pub(super) fn draw(drawing: &mut Drawing, view: &SessionView) {
    drawing.y += 20.0;
    let title = match &view.peer {
        Some(peer) => format!("{} with {peer} · {}", view.host, view.number),
        None => format!("{} · session {}", view.host, view.number),
    };
    let title = fit(&title, 12.0, LEFT - 24.0);
    drawing
        .front
        .text("head", (16.0, drawing.y + 4.0), Anchor::Start, &title);
    for (span, state) in &view.states {
        let (x, width) = drawing.scale.span(*span);
        let words = format!("{} session {state}", view.side);
        drawing
            .front
            .rect(state, (x, drawing.y - 2.0), (width, 4.0), &words);
    }
    if let Some((span, state)) = view.states.last().filter(|(span, _)| span.from == span.to) {
        let x = drawing.scale.x(span.from);
        drawing
            .front
            .rect(state, (x, drawing.y - 5.0), (2.0, 10.0), state);
        let turned = x + 50.0 > WIDTH - RIGHT;
        let (x, anchor) = if turned {
            (x - 5.0, Anchor::End)
        } else {
            (x + 6.0, Anchor::Start)
        };
        let above = if turned { drawing.y - 5.0 } else { drawing.y + 4.0 };
        drawing.front.text("small", (x, above), anchor, state);
    }
    let top = drawing.y + 10.0;
    let lanes = view.lanes.len().min(MAX_LANES);
    let mut taken = vec![Vec::new(); lanes];
    for (lane, place) in view.lanes[..lanes].iter().zip(0..) {
        bars(drawing, lane, top + f64::from(place) * LANE);
    }
    moves(drawing, view, top, &mut taken);
    for ((lane, place), taken) in view.lanes[..lanes].iter().zip(0..).zip(&mut taken) {
        reasons(drawing, lane, top + f64::from(place) * LANE, taken);
    }
    drawing.y = top + view.lanes.len().min(MAX_LANES) as f64 * LANE;
    if view.lanes.len() > MAX_LANES {
        let text = format!("and {} more paths", view.lanes.len() - MAX_LANES);
        drawing
            .front
            .text("small", (28.0, drawing.y + 9.0), Anchor::Start, &text);
        drawing.y += 14.0;
    }
}

fn bars(drawing: &mut Drawing, lane: &Lane, y: f64) {
    let label = fit(&lane.label, SMALL, LEFT - 40.0);
    drawing
        .front
        .text("small", (28.0, y + 11.0), Anchor::Start, &label);
    for (span, phase) in &lane.phases {
        let (x, width) = drawing.scale.span(*span);
        let title = format!("{}: {phase:?}", lane.label).to_lowercase();
        drawing.front.rect(class(*phase), (x, y), (width, BAR), &title);
    }
    for (at, _) in &lane.ends {
        let (x, middle) = (drawing.scale.x(*at), y + BAR / 2.0);
        for slope in [-3.5, 3.5] {
            drawing
                .front
                .line("cross", (x - 3.5, middle - slope), (x + 3.5, middle + slope));
        }
    }
}

/// From where to where in a lane there are words.
type Taken = Vec<(f64, f64)>;

fn take(taken: &mut Taken, from: f64, to: f64) -> bool {
    let free = taken.iter().all(|(begin, end)| to < *begin || from > *end);
    if free {
        taken.push((from, to));
    }
    free
}

/// Why paths ended, where there is room for it.
fn reasons(drawing: &mut Drawing, lane: &Lane, y: f64, taken: &mut Taken) {
    for (at, why) in &lane.ends {
        let (x, middle) = (drawing.scale.x(*at), y + BAR / 2.0);
        let phases = lane.phases.iter().map(|(span, _)| span.from);
        let next = phases.filter(|from| from >= at).min();
        let until = next.map_or(WIDTH - RIGHT, |next| drawing.scale.x(next));
        let room = until - x - 12.0;
        let text = fit(why, SMALL, room);
        if room > 40.0 && take(taken, x + 7.0, x + 7.0 + width_of(&text, SMALL)) {
            drawing
                .front
                .text("why", (x + 7.0, middle + 3.5), Anchor::Start, &text);
        }
    }
}

fn moves(drawing: &mut Drawing, view: &SessionView, top: f64, taken: &mut [Taken]) {
    let middle = |lane: usize| top + lane as f64 * LANE + BAR / 2.0;
    let lanes = taken.len();
    let mut last = f64::MIN;
    for step in view.moves.iter().filter(|step| step.to < lanes) {
        let x = drawing.scale.x(step.at);
        let from = step.from.filter(|from| *from < lanes && *from != step.to);
        let start = from.map_or(top - 8.0, middle);
        let to = middle(step.to);
        if x - last > 1.0 || from.is_some() {
            drawing.front.line("move", (x, start), (x, to));
            drawing.front.circle("dot", (x, to), 3.6);
        }
        last = x;
        let wide = width_of(&step.label, SMALL) * 1.1;
        let turned = x + wide + 12.0 > WIDTH - RIGHT;
        let left = if turned { x - wide - 7.0 } else { x + 7.0 };
        if !take(&mut taken[step.to], left, left + wide) {
            continue;
        }
        let (x, anchor) = if turned {
            (x - 7.0, Anchor::End)
        } else {
            (x + 7.0, Anchor::Start)
        };
        drawing.front.text("cause", (x, to + 3.8), anchor, &step.label);
    }
}
