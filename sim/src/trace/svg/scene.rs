//! What is to be drawn: bands of faults, sessions with a lane for each path, and charts of what links carried.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::trace::record::{HostPower, PathPhase, Phase, What};
use crate::trace::story::Story;
use crate::trace::words::length;

/// Something that lasts, in nanoseconds since the world began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A fault.
pub(super) struct Band {
    pub(super) span: Span,
    pub(super) label: String,
    /// Something goes wrong, rather than being a circumstance.
    pub(super) shaded: bool,
    /// The same for the two directions of one link.
    both: Option<String>,
}

/// A path's connections one after another.
pub(super) struct Lane {
    pub(super) label: String,
    pub(super) phases: Vec<(Span, PathPhase)>,
    /// Why they ended.
    pub(super) ends: Vec<(u64, String)>,
    /// The path that is in it.
    current: Option<u32>,
}

/// A move of the data from lane to lane.
pub(super) struct Move {
    pub(super) at: u64,
    pub(super) from: Option<usize>,
    pub(super) to: usize,
    pub(super) label: String,
}

pub(super) struct SessionView {
    pub(super) host: String,
    pub(super) number: u32,
    pub(super) side: &'static str,
    /// What both ends have in common.
    id: Option<String>,
    /// The host of the other end, if it is here.
    pub(super) peer: Option<String>,
    pub(super) states: Vec<(Span, String)>,
    pub(super) lanes: Vec<Lane>,
    pub(super) moves: Vec<Move>,
    /// Where each path is.
    places: BTreeMap<u32, usize>,
}

/// Both directions between two hosts on a network.
pub(super) struct Chart {
    pub(super) network: String,
    pub(super) ends: (String, String),
    /// The numbers of the links there and back.
    pub(super) links: [Option<usize>; 2],
    pub(super) bytes: u64,
}

/// The label of a change to one direction, and of the same change to both.
fn of_direction(fault: &Fault) -> Option<(String, String)> {
    let (network, from, to, what) = match fault {
        Fault::Partition {
            from,
            to,
            network,
            cut,
            ..
        } => (network, from, to, if *cut { "cut" } else { "joined" }.to_owned()),
        Fault::Link {
            from,
            to,
            network,
            config,
        } => {
            let mut parts = vec![length(config.delay.as_nanos() as u64)];
            if config.rate > 0 {
                parts.push(crate::trace::words::rate(config.rate as f64));
            }
            let loss = config.loss.mean();
            if loss > 0.0 {
                parts.push(format!("{} % loss", crate::trace::words::short(loss * 100.0)));
            }
            (network, from, to, parts.join(", "))
        }
        _ => return None,
    };
    let (one, other) = if from < to { (from, to) } else { (to, from) };
    Some((
        format!("{network}: {from} → {to} {what}"),
        format!("{network}: {one} ⇄ {other} {what}"),
    ))
}

/// What a box in front of an interface does, in short.
fn of_box(fault: &Fault) -> Option<String> {
    let Fault::Middlebox {
        host,
        network,
        config: Some(config),
    } = fault
    else {
        return None;
    };
    let idle = length(config.idle.as_nanos() as u64);
    let parts = [
        config.nat.then(|| "address translation".to_owned()),
        (!config.idle.is_zero()).then(|| format!("forgets after {idle}")),
        config.block_udp.then(|| "no UDP".to_owned()),
        (config.max_connections > 0).then(|| format!("at most {} connections", config.max_connections)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = if parts.is_empty() {
        "a box".to_owned()
    } else {
        parts.join(", ")
    };
    Some(format!("{network}: {host} behind {what}"))
}

/// Faults with their ends; the two directions of one link are one.
pub(super) fn bands(story: &Story) -> Vec<Band> {
    let mut open: BTreeMap<&str, (u64, &Fault, &str)> = BTreeMap::new();
    let mut all = Vec::new();
    let mut add = |from: u64, to: u64, fault: &Fault, text: &str| {
        let (label, both) = match of_direction(fault) {
            Some((label, both)) => (label, Some(both)),
            None => (of_box(fault).unwrap_or_else(|| text.to_owned()), None),
        };
        all.push(Band {
            span: Span { from, to },
            label,
            shaded: !matches!(fault, Fault::Middlebox { .. } | Fault::Skew { .. }),
            both,
        });
    };
    for record in &story.log {
        let What::Fault {
            phase,
            key,
            text,
            fault,
        } = &record.what
        else {
            continue;
        };
        if *phase == Phase::Happens {
            add(record.at, record.at, fault, text);
            continue;
        }
        if let Some((from, fault, text)) = open.remove(key.as_str()) {
            add(from, record.at, fault, text);
        }
        if *phase == Phase::Begins {
            open.insert(key, (record.at, fault, text));
        }
    }
    for (from, fault, text) in open.into_values() {
        add(from, story.end, fault, text);
    }
    merge_directions(all)
}

fn merge_directions(mut all: Vec<Band>) -> Vec<Band> {
    all.sort_by_key(|band| (band.span.from, band.span.to));
    let mut merged: Vec<Band> = Vec::new();
    for band in all {
        let twin = merged.iter_mut().find(|other| {
            other.span == band.span
                && band.both.is_some()
                && other.both == band.both
                && other.label != band.label
        });
        match twin {
            Some(twin) => twin.label = twin.both.clone().unwrap_or_default(),
            None => merged.push(band),
        }
    }
    merged
}

impl SessionView {
    fn new(host: &str, number: u32) -> SessionView {
        SessionView {
            host: host.to_owned(),
            number,
            side: "",
            id: None,
            peer: None,
            states: Vec::new(),
            lanes: Vec::new(),
            moves: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    fn end_state(&mut self, at: u64) {
        if let Some((span, _)) = self.states.last_mut().filter(|(span, _)| span.to == u64::MAX) {
            span.to = at;
        }
    }

    fn end_phase(&mut self, lane: usize, at: u64) {
        if let Some((span, _)) = self.lanes[lane]
            .phases
            .last_mut()
            .filter(|(span, _)| span.to == u64::MAX)
        {
            span.to = at;
        }
    }

    /// The lane of a path: the one that its predecessor of the same name has left, or a new one.
    fn lane(&mut self, path: u32, label: &str) -> usize {
        if let Some(&place) = self.places.get(&path) {
            return place;
        }
        let free = |lane: &Lane| lane.label == label && lane.current.is_none();
        let place = self.lanes.iter().position(free).unwrap_or_else(|| {
            self.lanes.push(Lane {
                label: label.to_owned(),
                phases: Vec::new(),
                ends: Vec::new(),
                current: None,
            });
            self.lanes.len() - 1
        });
        self.lanes[place].current = Some(path);
        self.places.insert(path, place);
        place
    }

    fn path(&mut self, at: u64, path: u32, label: &str, phase: PathPhase, why: Option<&str>) {
        let place = self.lane(path, label);
        self.end_phase(place, at);
        let lane = &mut self.lanes[place];
        if phase == PathPhase::Down {
            lane.current = None;
            lane.ends.push((at, why.unwrap_or("").to_owned()));
        } else {
            let span = Span {
                from: at,
                to: u64::MAX,
            };
            lane.phases.push((span, phase));
        }
    }

    /// How much there is to see.
    fn eventful(&self) -> usize {
        let lanes = self.lanes.iter().map(|lane| lane.phases.len() + lane.ends.len());
        self.states.len() + 2 * self.moves.len() + lanes.sum::<usize>()
    }

    /// Its host lost power.
    fn vanish(&mut self, at: u64) {
        self.end_state(at);
        for place in 0..self.lanes.len() {
            self.end_phase(place, at);
            self.lanes[place].current = None;
        }
    }
}

/// Of many sessions the most eventful ones, in their order.
pub(super) fn most_eventful(all: Vec<SessionView>, most: usize) -> Vec<SessionView> {
    let mut ranks: Vec<usize> = (0..all.len()).collect();
    ranks.sort_by_key(|&index| (std::cmp::Reverse(all[index].eventful()), index));
    ranks.truncate(most);
    let kept = all.into_iter().enumerate();
    let kept = kept.filter(|(index, _)| ranks.contains(index));
    kept.map(|(_, view)| view).collect()
}

/// What a path is called in the picture: the network for a server, whose paths' ports say nothing.
fn path_label(story: &Story, name: &str) -> String {
    let short = name.split_once("://").map_or(name, |(_, rest)| rest);
    let address: Option<std::net::SocketAddrV4> = short.parse().ok();
    match address.map(|address| (address.ip().octets(), *address.ip())) {
        Some(([10, network, ..], ip)) => match story.networks.get(usize::from(network)) {
            Some(network) => format!("{network}, {ip}"),
            None => ip.to_string(),
        },
        _ => short.to_owned(),
    }
}

/// Every session, in the order of their hosts.
pub(super) fn sessions(story: &Story) -> Vec<SessionView> {
    let mut all: BTreeMap<(usize, u32), SessionView> = BTreeMap::new();
    for record in &story.log {
        let at = record.at;
        let (host, session) = match &record.what {
            What::Session { host, session, .. }
            | What::Path { host, session, .. }
            | What::Switch { host, session, .. } => (host, *session),
            What::Power {
                host,
                power: HostPower::Crashed,
            } => {
                for view in all.values_mut().filter(|view| view.host == *host) {
                    view.vanish(at);
                }
                continue;
            }
            _ => continue,
        };
        let index = story.hosts.iter().position(|name| name == host).unwrap_or(0);
        let view = all
            .entry((index, session))
            .or_insert_with(|| SessionView::new(host, session));
        take(story, view, at, &record.what);
    }
    let mut all: Vec<SessionView> = all.into_values().collect();
    for index in 0..all.len() {
        let own = &all[index];
        let other = all
            .iter()
            .find(|other| own.id.is_some() && other.id == own.id && other.side != own.side);
        all[index].peer = other.map(|other| other.host.clone());
    }
    for view in &mut all {
        view.end_state(story.end);
        for place in 0..view.lanes.len() {
            view.end_phase(place, story.end);
        }
    }
    all
}

fn take(story: &Story, view: &mut SessionView, at: u64, what: &What) {
    match what {
        What::Session { side, state, id, .. } => {
            view.side = side;
            view.id = view.id.take().or_else(|| id.clone());
            view.end_state(at);
            if state != "closed" && state != "failed" {
                let span = Span {
                    from: at,
                    to: u64::MAX,
                };
                view.states.push((span, state.clone()));
            } else {
                view.states.push((Span { from: at, to: at }, state.clone()));
            }
        }
        What::Path {
            path,
            name,
            phase,
            why,
            ..
        } => view.path(at, *path, &path_label(story, name), *phase, why.as_deref()),
        What::Switch {
            from, to, cause, gap, ..
        } => {
            let Some(&to) = view.places.get(to) else { return };
            let gap = gap.map_or(String::new(), |gap| format!(", {}", length(gap)));
            view.moves.push(Move {
                at,
                from: from.and_then(|from| view.places.get(&from).copied()),
                to,
                label: format!("{cause}{gap}"),
            });
        }
        _ => {}
    }
}

/// Charts of what the links carried, the busiest first.
pub(super) fn charts(story: &Story) -> Vec<Chart> {
    let mut all: Vec<Chart> = Vec::new();
    for (index, link) in story.links.iter().enumerate() {
        let bins = story.traffic.links.get(index).map_or(&[][..], Vec::as_slice);
        let bytes: u64 = bins.iter().map(|bin| bin.bytes).sum();
        if bytes == 0 && bins.iter().all(|bin| bin.drops.total() == 0) {
            continue;
        }
        let back = all.iter_mut().find(|chart| {
            chart.network == link.network
                && chart.ends == (link.to.clone(), link.from.clone())
                && chart.links[1].is_none()
        });
        match back {
            Some(chart) if link.from != link.to => {
                chart.links[1] = Some(index);
                chart.bytes += bytes;
            }
            _ => all.push(Chart {
                network: link.network.clone(),
                ends: (link.from.clone(), link.to.clone()),
                links: [Some(index), None],
                bytes,
            }),
        }
    }
    all.sort_by_key(|chart| std::cmp::Reverse(chart.bytes));
    all
}
