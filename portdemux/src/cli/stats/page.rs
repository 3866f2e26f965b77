//! Counters as tables.

use std::cmp::Reverse;

use portdemux_common::{blocks::Counter, conntrack::Relation, entry::Action};

use super::{Args, chosen, is_single};
use crate::{
    cli::{
        listeners,
        output::{Align, Output, Style, Table, no_room},
    },
    figures::{cut, grouped, rate, size},
    listeners::Behind,
    maps::{counters::Traffic, redirect_drops::Lost},
    rules::{Destination, PortRange},
    snapshot::{PortKey, Snapshot},
};

/// How many ports are shown where nobody asked for all.
const PORTS_SHOWN: usize = 20;
/// How many rules are shown where nobody asked for all.
const RULES_SHOWN: usize = 10;
/// How many lines a screen has at least that shows parts of all tables.
const SMALL: usize = 14;
/// How many lines a screen has that shows no more than rows of one table.
const TINY: usize = 5;

/// Everything as tables; `screen` is how many lines there are to hold them, if there is an end.
pub(super) fn text(
    args: &Args,
    output: &Output,
    before: &Snapshot,
    now: &Snapshot,
    behind: Option<&Behind>,
    screen: Option<usize>,
) -> String {
    let mut left_out = Vec::new();
    let mut text = tables(args, output, [before, now], behind, screen, &mut left_out);
    if let Some(lines) = screen
        && !left_out.is_empty()
    {
        left_out.clear();
        // The line that says so takes the room of another, unless there are too few.
        if lines > TINY {
            let lines = Some(lines - 1);
            text = tables(args, output, [before, now], behind, lines, &mut left_out);
        }
    }
    text + &no_room(&left_out, output)
}

fn tables(
    args: &Args,
    output: &Output,
    [before, now]: [&Snapshot; 2],
    behind: Option<&Behind>,
    screen: Option<usize>,
    left_out: &mut Vec<&'static str>,
) -> String {
    let ports = busiest_first(folded(args, before, now), before, now);
    let rules = now.rules_by_traffic();
    let reasons = now.reasons();
    let limit = |count: usize, shown: usize| {
        if args.all {
            count
        } else {
            // A line that says that there is one more takes as much room as the one.
            count.min(shown + 1)
        }
    };
    // How their flows stand is told of ports that were asked for.
    let has_flows = now.tracks_flows() && !args.ports.is_empty() && !ports.is_empty();
    // Those that follow the first.
    let mut wanted = [
        if has_flows {
            limit(ports.len(), PORTS_SHOWN)
        } else {
            0
        },
        limit(rules.len(), RULES_SHOWN),
        reasons.len(),
        now.lost.len(),
    ];
    let first = match screen {
        Some(lines) => {
            let mut all = vec![ports.len()];
            all.extend(wanted.iter().filter(|&&wanted| wanted > 0));
            let mut room = room(lines, &all).into_iter();
            let first = room.next().unwrap_or_default();
            for wanted in wanted.iter_mut().filter(|wanted| **wanted > 0) {
                *wanted = room.next().unwrap_or_default();
            }
            first
        }
        None => limit(ports.len(), PORTS_SHOWN),
    };

    let mut text = if ports.is_empty() && args.ports.is_empty() {
        "no port saw traffic yet\n".to_owned()
    } else if ports.is_empty() {
        "none of these ports saw traffic or is claimed\n".to_owned()
    } else {
        let shown = shown(ports.len(), first);
        let hidden = ports[shown..]
            .iter()
            .map(|range| range.len() as usize)
            .sum();
        port_table(&ports[..shown], before, now, behind).render_noting(output, left_out)
            + &more(args, output, hidden, "ports saw traffic or are claimed")
    };
    let mut follows = |count: usize, room: usize, what: &str, table: &dyn Fn(usize) -> Table| {
        // On a small screen there is no room for some.
        if room > 0 {
            let shown = shown(count, room);
            text.push('\n');
            text.push_str(&table(shown).render_noting(output, left_out));
            text.push_str(&more(args, output, count - shown, what));
        }
    };
    let [flow_room, rule_room, reason_room, lost_room] = wanted;
    follows(ports.len(), flow_room, "ports", &|shown| {
        flow_table(&ports[..shown], now)
    });
    follows(rules.len(), rule_room, "rules", &|shown| {
        rule_table(&rules[..shown])
    });
    follows(reasons.len(), reason_room, "reasons", &|shown| {
        reason_table(&reasons[..shown])
    });
    follows(now.lost.len(), lost_room, "losses", &|shown| {
        lost_table(&now.lost[..shown])
    });
    text
}

/// How many rows of a screen each table gets that wants so many; 0 if it has no place there, save for the first.
/// Each has a head and a blank line before it, save for the first.
fn room(lines: usize, wanted: &[usize]) -> Vec<usize> {
    if lines >= SMALL {
        return shared(lines - (2 * wanted.len() - 1), wanted);
    }
    // On a small screen one after the other, as long as there is room for a row or for how many there are.
    let mut left = lines + 1;
    let rows = wanted.iter().map(|&wanted| {
        let rows = wanted.min(left.saturating_sub(2));
        left = if rows == 0 { 0 } else { left - rows - 2 };
        rows
    });
    rows.collect()
}

/// How many lines of a screen each table gets: as many as the others, and of what those leave the first
/// table first.
fn shared(lines: usize, wanted: &[usize]) -> Vec<usize> {
    let fair = lines / wanted.len();
    let mut given: Vec<usize> = wanted.iter().map(|&wanted| wanted.min(fair)).collect();
    for (slot, &wanted) in wanted.iter().enumerate() {
        let left = lines - given.iter().sum::<usize>();
        given[slot] += left.min(wanted - given[slot]);
    }
    given
}

/// How many of the rows have room in so many lines; one of these says how many have not.
const fn shown(rows: usize, lines: usize) -> usize {
    if rows <= lines {
        rows
    } else {
        lines.saturating_sub(1)
    }
}

fn more(args: &Args, output: &Output, hidden: usize, what: &str) -> String {
    if hidden == 0 {
        return String::new();
    }
    let how = if args.all { "" } else { " (--all)" };
    let text = format!("… {} more {what}{how}", grouped(hidden as u64));
    output.styled(Style::Faint, &cut(&text, output.size().0)) + "\n"
}

/// The ports that are shown, ascending. Neighbours to which nothing came and that one rule claims are
/// one range, save for those that were asked for one by one.
fn folded(args: &Args, before: &Snapshot, now: &Snapshot) -> Vec<PortRange> {
    let is_named = |(transport, port): PortKey| {
        let mut named = args.ports.iter().filter(|range| is_single(**range));
        named.any(|range| range.transport == transport && range.first == port)
    };
    let is_idle = |key| {
        let packets = now.traffic(key).received.packets;
        let sent = now.flows(key).unwrap_or_default().sent.packets;
        packets == 0
            && sent == 0
            && before.traffic(key).received.packets == 0
            && now.entry(key).is_claimed()
    };
    let mut ranges: Vec<PortRange> = Vec::new();
    // The last port of the last range, if more can join it.
    let mut open: Option<PortKey> = None;
    for key in chosen(args, now) {
        let (transport, port) = key;
        let joins = is_idle(key) && !is_named(key);
        let follows = open.is_some_and(|(open_transport, last)| {
            transport == open_transport
                && last.checked_add(1) == Some(port)
                && now.entry(key) == now.entry((open_transport, last))
        });
        match ranges.last_mut() {
            Some(range) if joins && follows => range.last = port,
            _ => ranges.push(PortRange {
                transport,
                first: port,
                last: port,
            }),
        }
        open = joins.then_some(key);
    }
    ranges
}

/// Puts first what is busiest now, then what was in all.
fn busiest_first(mut ranges: Vec<PortRange>, before: &Snapshot, now: &Snapshot) -> Vec<PortRange> {
    ranges.sort_by_cached_key(|range| {
        let key = first(*range);
        let received = now.traffic(key).received.packets;
        let new = received.saturating_sub(before.traffic(key).received.packets);
        (Reverse(new), Reverse(received), key)
    });
    ranges
}

const fn first(range: PortRange) -> PortKey {
    (range.transport, range.first)
}

fn port_table(
    ranges: &[PortRange],
    before: &Snapshot,
    now: &Snapshot,
    behind: Option<&Behind>,
) -> Table {
    let seconds = (now.taken - before.taken).as_secs_f64();
    let mut table = Table::new()
        .column("PORT", Align::Left, 0)
        .column("RULE", Align::Left, 0)
        .column("LISTENER", Align::Left, 9)
        .column("RECEIVED", Align::Right, 0)
        .column("BYTES", Align::Right, 2)
        .column("PKT/S", Align::Right, 1)
        .column("DROPPED", Align::Right, 0)
        .column("WHY", Align::Left, 3);
    if now.tracks_flows() {
        table = table
            .column("NEW", Align::Right, 4)
            .column("SENT", Align::Right, 5);
    }
    for range in ranges {
        let key = first(*range);
        let traffic = now.traffic(key);
        let packets = traffic.received.packets;
        let new = packets.saturating_sub(before.traffic(key).received.packets);
        #[expect(clippy::cast_precision_loss, reason = "a rate is read by people")]
        let per_second = if seconds > 0.0 {
            new as f64 / seconds
        } else {
            0.0
        };
        let entry = now.entry(key);
        let why = match (entry.is_claimed(), entry.action()) {
            (false, _) => "unclaimed",
            (true, Action::Drop) => "rule_drop",
            (true, Action::Reject) => "rule_reject",
            (
                true,
                Action::Local | Action::Socket | Action::Interface | Action::Cpu | Action::Xsk,
            ) => "",
        };
        let to = now.destination(key).unwrap_or(&Destination::Local);
        let names = behind.map(|behind| behind.at(&[*range], &[], to));
        let names = names.unwrap_or_default();
        let mut row = vec![
            range.to_string(),
            now.rule(key).unwrap_or_default().to_owned(),
            listeners::cell(&names),
            grouped(packets),
            size(traffic.received.bytes),
            rate(per_second),
            grouped(traffic.dropped.packets),
            why.to_owned(),
        ];
        if let Some(flows) = now.flows(key) {
            row.extend([
                grouped(flows.of(Relation::New)),
                grouped(flows.sent.packets),
            ]);
        }
        table.row(row);
    }
    table
}

/// How what came for ports stands to flows, and what was sent from them.
fn flow_table(ranges: &[PortRange], now: &Snapshot) -> Table {
    let mut table = Table::new()
        .column("PORT", Align::Left, 0)
        .column("NEW", Align::Right, 0)
        .column("ESTABLISHED", Align::Right, 0)
        .column("REPLIES", Align::Right, 0)
        .column("RELATED", Align::Right, 0)
        .column("SENT", Align::Right, 0)
        .column("BYTES", Align::Right, 1);
    for range in ranges {
        let flows = now.flows(first(*range)).unwrap_or_default();
        table.row([
            range.to_string(),
            grouped(flows.of(Relation::New)),
            grouped(flows.of(Relation::Established)),
            grouped(flows.of(Relation::Reply)),
            grouped(flows.of(Relation::Related)),
            grouped(flows.sent.packets),
            size(flows.sent.bytes),
        ]);
    }
    table
}

fn rule_table(rules: &[(&str, Traffic)]) -> Table {
    let mut table = Table::new()
        .column("RULE", Align::Left, 0)
        .column("RECEIVED", Align::Right, 0)
        .column("BYTES", Align::Right, 1)
        .column("DROPPED", Align::Right, 0);
    for (name, traffic) in rules {
        table.row([
            (*name).to_owned(),
            grouped(traffic.received.packets),
            size(traffic.received.bytes),
            grouped(traffic.dropped.packets),
        ]);
    }
    table
}

fn reason_table(reasons: &[(&'static str, Counter)]) -> Table {
    let mut table = Table::new()
        .column("REASON", Align::Left, 0)
        .column("PACKETS", Align::Right, 0)
        .column("BYTES", Align::Right, 1);
    for (reason, counter) in reasons {
        table.row([
            (*reason).to_owned(),
            grouped(counter.packets),
            size(counter.bytes),
        ]);
    }
    table
}

/// What targets did not take of the packets that were sent to them.
fn lost_table(lost: &[Lost]) -> Table {
    let mut table = Table::new()
        .column("LOST AT", Align::Left, 0)
        .column("WHY", Align::Left, 0)
        .column("PACKETS", Align::Right, 0);
    for lost in lost {
        table.row([
            lost.to.to_string(),
            lost.loss.name().to_owned(),
            grouped(lost.packets),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_table_leaves_of_a_screen_the_others_get_the_first_before_the_rest() {
        assert_eq!(shared(18, &[100, 100, 100]), [6, 6, 6]);
        assert_eq!(shared(18, &[100, 2, 3]), [13, 2, 3]);
        assert_eq!(shared(18, &[3, 10, 3]), [3, 10, 3]);
        assert_eq!(shared(18, &[1, 1, 1]), [1, 1, 1]);
        assert_eq!(shared(0, &[5, 5, 5]), [0, 0, 0]);
        assert_eq!(shared(2, &[5, 5, 5]), [2, 0, 0]);
    }

    #[test]
    fn tables_follow_each_other_on_a_small_screen_as_long_as_there_is_room() {
        assert_eq!(room(12, &[5, 5, 3]), [5, 4, 0]);
        assert_eq!(room(12, &[11, 5, 3]), [11, 0, 0]);
        assert_eq!(room(12, &[20, 5, 3]), [11, 0, 0]);
        assert_eq!(room(12, &[1, 1, 3]), [1, 1, 3]);
        assert_eq!(room(13, &[2, 2, 5]), [2, 2, 4]);
        assert_eq!(room(1, &[5, 5]), [0, 0]);
        assert_eq!(room(SMALL, &[5, 5, 3]), [3, 3, 3]);
    }

    #[test]
    fn a_table_that_is_cut_keeps_a_line_to_say_so() {
        assert_eq!(shown(5, 5), 5);
        assert_eq!(shown(6, 5), 4);
        assert_eq!(shown(1, 0), 0);
    }
}
