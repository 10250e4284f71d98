//! A trace as a timeline to read: a lane for each host, and a line for each thing worth reading.

use std::io::{self, Write};

use super::record::{ConnectionEvent, Drops, Phase, Record, What};
use super::story::Story;
use super::words::{amount, length, names_of_drops, round_up};
use crate::world::World;

/// Hosts that have a lane; with more of them, each line begins with the host's name.
const MAX_LANES: usize = 8;
/// Parts of the run after each of which is told what the links carried.
const PARTS: f64 = 20.0;

/// Writes what a world has kept as a timeline. What the links carried is summed up, some twenty times over the run.
///
/// # Errors
/// What the writer says.
pub fn write_text(world: &World, out: impl Write) -> io::Result<()> {
    write(&Story::of(world), out, false)
}

/// Writes what a world has kept as a timeline, with a line for every packet if [`World::keep_packets`] was called.
///
/// # Errors
/// What the writer says.
pub fn write_text_with_packets(world: &World, out: impl Write) -> io::Result<()> {
    let story = Story::of(world);
    let packets = story.packets.is_some();
    write(&story, out, packets)
}

fn write(story: &Story, mut out: impl Write, packets: bool) -> io::Result<()> {
    let lanes = Lanes::new(&story.hosts);
    writeln!(
        out,
        "seed {}: {} hosts, {} networks, {}",
        story.seed,
        story.hosts.len(),
        story.networks.len(),
        length(story.end)
    )?;
    writeln!(out, "{:>14}  {}", "seconds", lanes.title())?;
    let mut records = if packets {
        story.records()
    } else {
        story.log.clone()
    };
    if !packets {
        records.extend(carried(story));
        records.sort_by_key(told_at);
    }
    for record in &records {
        let at = told_at(record).min(story.end);
        let (seconds, rest) = (at / 1_000_000_000, at % 1_000_000_000 / 1000);
        let place = place(&record.what);
        writeln!(
            out,
            "{seconds:>7}.{rest:06}  {} {}",
            lanes.draw(&place),
            words(record)
        )?;
    }
    out.flush()
}

/// What links carried is told when the interval is over.
fn told_at(record: &Record) -> u64 {
    match record.what {
        What::Traffic { until, .. } => until,
        _ => record.at,
    }
}

/// Where in the lanes something happens.
enum Place<'a> {
    At(&'a str),
    Between(&'a str, &'a str),
    Everywhere,
}

struct Lanes<'a> {
    hosts: &'a [String],
    width: usize,
}

impl Lanes<'_> {
    fn new(hosts: &[String]) -> Lanes<'_> {
        let longest = hosts.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Lanes {
            hosts,
            width: longest.max(6) + 2,
        }
    }

    fn are_drawn(&self) -> bool {
        self.hosts.len() <= MAX_LANES
    }

    fn title(&self) -> String {
        if !self.are_drawn() {
            return format!("{:<width$}", "host", width = self.width);
        }
        let names = self
            .hosts
            .iter()
            .map(|name| format!("{name:^width$}", width = self.width));
        names.collect()
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host == name)
    }

    fn draw(&self, place: &Place<'_>) -> String {
        if !self.are_drawn() {
            let name = match place {
                Place::At(name) => (*name).to_owned(),
                Place::Between(from, to) => format!("{from} → {to}"),
                Place::Everywhere => String::new(),
            };
            return format!("{name:<width$}", width = self.width);
        }
        let middle = |index: usize| index * self.width + self.width / 2;
        let mut line = vec![' '; self.hosts.len() * self.width];
        for index in 0..self.hosts.len() {
            line[middle(index)] = '│';
        }
        match place {
            Place::At(name) => {
                if let Some(index) = self.index(name) {
                    line[middle(index)] = '●';
                }
            }
            Place::Between(from, to) => {
                if let (Some(from), Some(to)) = (self.index(from), self.index(to)) {
                    let (a, b) = (middle(from), middle(to));
                    line[a.min(b)..=a.max(b)].fill('─');
                    line[a] = if a < b { '├' } else { '┤' };
                    line[b] = if a < b { '▶' } else { '◀' };
                    if a == b {
                        line[a] = '↻';
                    }
                }
            }
            Place::Everywhere => line.fill('═'),
        }
        line.into_iter().collect()
    }
}

fn place(what: &What) -> Place<'_> {
    match what {
        What::Packet { from, to, .. } | What::Traffic { from, to, .. } => Place::Between(from, to),
        What::Connection { host, .. }
        | What::Power { host, .. }
        | What::Note { host, .. }
        | What::Session { host, .. }
        | What::Path { host, .. }
        | What::Switch { host, .. } => Place::At(host),
        What::Fault { .. } | What::Failure { .. } => Place::Everywhere,
    }
}

fn words(record: &Record) -> String {
    match &record.what {
        What::Packet { .. } => packet(record),
        What::Traffic {
            network,
            until,
            packets,
            bytes,
            drops,
            ..
        } => format!(
            "{network}: {packets} packets, {} in the last {}{}",
            amount(*bytes),
            length(until - record.at),
            dropped(drops)
        ),
        What::Connection {
            local, remote, event, ..
        } => match event {
            ConnectionEvent::Calls => format!("{local} calls {remote}"),
            ConnectionEvent::Opens => format!("{local} is connected to {remote}"),
            ConnectionEvent::Fails { error } => format!("{local} to {remote} fails: {error}"),
            ConnectionEvent::Closes => format!("{local} to {remote} is closed"),
        },
        What::Fault { phase, text, .. } => match phase {
            Phase::Begins => format!("FAULT begins: {text}"),
            Phase::Ends => format!("FAULT over: {text}"),
            Phase::Happens => format!("FAULT: {text}"),
        },
        What::Power { power, .. } => format!("{power:?}").to_lowercase(),
        What::Note { text, .. } => format!("“{text}”"),
        What::Session {
            session,
            side,
            state,
            cause,
            ..
        } => format!("session {session} ({side}) is {state}: {cause}"),
        What::Path { .. } => path(&record.what),
        What::Switch {
            session,
            from,
            to,
            cause,
            gap,
            ..
        } => {
            let from = from.map_or(String::new(), |from| format!(" from path {from}"));
            let gap = gap.map_or(String::new(), |gap| format!("; nothing came for {}", length(gap)));
            format!("session {session} moves{from} to path {to}: {cause}{gap}")
        }
        What::Failure { text } => format!("FAILED {text}"),
    }
}

fn packet(record: &Record) -> String {
    let What::Packet {
        network,
        source,
        destination,
        kind,
        seq,
        ack,
        len,
        arrives,
        dropped,
        ..
    } = &record.what
    else {
        return String::new();
    };
    let numbers = match kind.as_str() {
        "udp" => String::new(),
        _ => format!(" seq {seq} ack {ack}"),
    };
    let fate = match (arrives, dropped) {
        (_, Some(reason)) => {
            let mut drops = Drops::default();
            drops.add(*reason);
            format!("dropped: {}", names_of_drops(&drops))
        }
        (Some(arrives), None) => format!("takes {}", length(arrives - record.at)),
        (None, None) => String::new(),
    };
    format!("{network}: {source} to {destination} {kind}{numbers}, {len} bytes, {fate}")
}

fn path(what: &What) -> String {
    let What::Path {
        session,
        path,
        name,
        phase,
        why,
        sent,
        received,
        ..
    } = what
    else {
        return String::new();
    };
    let why = why.as_ref().map_or(String::new(), |why| {
        let (sent, received) = (amount(*sent), amount(*received));
        format!(": {why}; {sent} sent, {received} received")
    });
    let phase = format!("{phase:?}").to_lowercase();
    format!("session {session} path {path} ({name}) is {phase}{why}")
}

fn dropped(drops: &Drops) -> String {
    match drops.total() {
        0 => String::new(),
        total => format!("; {total} dropped: {}", names_of_drops(drops)),
    }
}

/// What the links carried, part by part.
fn carried(story: &Story) -> Vec<Record> {
    let width = round_up(story.end as f64 / PARTS) as u64;
    let width = width.max(1).next_multiple_of(story.traffic.width);
    let mut all: Vec<Record> = Vec::new();
    for (link, bins) in story.links.iter().zip(&story.traffic.links) {
        let first = all.len();
        for bin in bins {
            let at = bin.index * story.traffic.width / width * width;
            if all.len() == first || all.last().is_none_or(|last| last.at != at) {
                all.push(Record {
                    at,
                    what: What::Traffic {
                        network: link.network.clone(),
                        from: link.from.clone(),
                        to: link.to.clone(),
                        until: at + width,
                        packets: 0,
                        bytes: 0,
                        carried: 0,
                        drops: Drops::default(),
                    },
                });
            }
            if let Some(What::Traffic {
                packets,
                bytes,
                carried,
                drops,
                ..
            }) = all.last_mut().map(|record| &mut record.what)
            {
                *packets += bin.packets;
                *bytes += bin.bytes;
                *carried += bin.carried;
                drops.merge(&bin.drops);
            }
        }
    }
    all
}
