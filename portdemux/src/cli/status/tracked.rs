//! How full the tables of flows are, and what happened to flows.

use std::{collections::BTreeMap, fmt::Write as _};

use portdemux_common::conntrack::{Event, Which};
use serde::Serialize;

use crate::{figures::grouped, maps::flows::FlowTables};

/// What happens only where a table has no room.
const TROUBLES: [Event; 4] = [
    Event::HalfOpenEvicted,
    Event::Evicted,
    Event::EvictedHere,
    Event::Full,
];

/// The tables of flows at one moment.
pub(super) struct Tracked {
    known: Fill,
    half_open: Fill,
    events: Vec<(Event, u64)>,
}

/// How full a table is.
#[derive(Clone, Copy, Serialize)]
struct Fill {
    count: u64,
    size: u64,
}

#[derive(Serialize)]
pub(super) struct Report {
    known: Fill,
    half_open: Fill,
    events: BTreeMap<&'static str, u64>,
}

impl Tracked {
    pub(super) fn read(flows: &FlowTables) -> Self {
        let (known, half_open) = flows.fill();
        Self {
            known: Fill {
                count: known,
                size: flows.room(Which::Known),
            },
            half_open: Fill {
                count: half_open,
                size: flows.room(Which::HalfOpen),
            },
            events: Event::ALL.map(|event| (event, flows.events(event))).into(),
        }
    }

    pub(super) fn report(&self) -> Report {
        let events = self.events.iter();
        Report {
            known: self.known,
            half_open: self.half_open,
            events: events
                .map(|(event, count)| (event.name(), *count))
                .collect(),
        }
    }

    /// A line about fill, and one about what had no room, if anything had none.
    pub(super) fn text(&self) -> String {
        let Fill { count, size } = self.known;
        let share = match (count, count * 100 / size.max(1)) {
            (0, _) => String::new(),
            (_, 0) => " (under 1 %)".into(),
            (_, percent) => format!(" ({percent} %)"),
        };
        let mut text = format!(
            "flows {} of {}{share}   half-open {} of {}\n",
            grouped(count),
            grouped(size),
            grouped(self.half_open.count),
            grouped(self.half_open.size)
        );
        let troubles = self
            .events
            .iter()
            .filter(|(event, count)| *count > 0 && TROUBLES.contains(event));
        let troubles: Vec<String> = troubles
            .map(|(event, count)| format!("{} {}", event.name(), grouped(*count)))
            .collect();
        if !troubles.is_empty() {
            let _ = writeln!(text, "no room for flows: {}", troubles.join("   "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_table_is_whole_percents_and_troubles_are_told_only_when_there_are_some() {
        let tracked = |count, events: &[(Event, u64)]| Tracked {
            known: Fill {
                count,
                size: 1_048_576,
            },
            half_open: Fill {
                count: 12,
                size: 65_536,
            },
            events: events.to_vec(),
        };
        assert_eq!(
            tracked(188_744, &[(Event::Begun, 7), (Event::Full, 0)]).text(),
            "flows 188,744 of 1,048,576 (18 %)   half-open 12 of 65,536\n"
        );
        assert_eq!(
            tracked(1, &[(Event::Evicted, 3), (Event::Full, 1_200)]).text(),
            "flows 1 of 1,048,576 (under 1 %)   half-open 12 of 65,536\nno room for flows: evicted 3   full \
             1,200\n"
        );
        assert_eq!(
            tracked(0, &[]).text(),
            "flows 0 of 1,048,576   half-open 12 of 65,536\n"
        );
    }
}
