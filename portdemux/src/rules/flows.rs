//! What is remembered of flows, and for how long.

use std::time::Duration;

use portdemux_common::policy::{self, TICK_SHIFT};

use super::{defaults::Defaults, duration::duration_text, error::Diagnostic, rule::Rule};

/// How many flows can be remembered.
pub const SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 24;

/// How long flows can be remembered.
pub const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(30 * 24);

/// The keys of the timeouts, in the order of [`Flows::timeouts`].
pub const TIMEOUT_KEYS: [&str; 7] = [
    "handshake",
    "tcp",
    "closing",
    "one_way",
    "udp",
    "sctp",
    "echo",
];

/// How many rules that need the state of flows are shown to who wants none.
const SHOWN: usize = 5;

/// What is remembered of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Whether they are tracked; none if that is left to what the ruleset needs.
    pub track: Option<bool>,
    /// How many are remembered; the next power of two is taken.
    pub size: u32,
    /// How many half-open ones are; the next power of two is taken.
    pub half_open: u32,
    /// How long each kind is remembered after its last packet, in the order of [`TIMEOUT_KEYS`].
    pub timeouts: [Duration; TIMEOUT_KEYS.len()],
    /// The line in which `track` stands, from 1; 0 if it stands in no file.
    pub line: usize,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            track: None,
            size: 1 << 16,
            half_open: 1 << 16,
            timeouts: [30, 86_400, 60, 30, 180, 86_400, 30].map(Duration::from_secs),
            line: 0,
        }
    }
}

impl Flows {
    /// How many flows there is room for.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.size.next_power_of_two()
    }

    /// How many half-open flows there is room for.
    #[must_use]
    pub const fn half_open_slots(&self) -> u32 {
        self.half_open.next_power_of_two()
    }

    /// The timeouts as the kernel takes them.
    #[must_use]
    pub fn ticks(&self) -> policy::Timeouts {
        let [handshake, tcp, closing, one_way, udp, sctp, echo] = self.timeouts.map(ticks);
        policy::Timeouts {
            handshake,
            tcp,
            closing,
            one_way,
            udp,
            sctp,
            echo,
        }
    }

    /// The timeouts that the kernel holds, as they can be written.
    #[must_use]
    pub fn of_ticks(timeouts: &policy::Timeouts) -> [Duration; TIMEOUT_KEYS.len()] {
        let policy::Timeouts {
            handshake,
            tcp,
            closing,
            one_way,
            udp,
            sctp,
            echo,
        } = *timeouts;
        [handshake, tcp, closing, one_way, udp, sctp, echo].map(of_ticks)
    }

    /// The keys and what they say, those that say what they would say if they were left out, too.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let sizes = [("size", self.size), ("half_open", self.half_open)];
        let sizes = sizes.map(|(key, size)| (key, size.to_string()));
        let timeouts = TIMEOUT_KEYS.into_iter().zip(self.timeouts);
        let timeouts = timeouts.map(|(key, timeout)| (key, duration_text(timeout)));
        sizes.into_iter().chain(timeouts).collect()
    }

    /// Whether they are tracked under these rules, or why that cannot be as it is.
    pub(super) fn tracked(&self, defaults: &Defaults, rules: &[Rule]) -> Result<bool, Diagnostic> {
        let settings = defaults.needing_flows();
        let needing = || {
            rules
                .iter()
                .filter_map(|rule| Some((rule, rule.terms.needs_flows()?)))
        };
        match self.track {
            Some(true) => return Ok(true),
            None => return Ok(!settings.is_empty() || needing().next().is_some()),
            Some(false) => {}
        }
        let first = needing().next().map(|(_, key)| key);
        let Some(what) = settings.first().or(first.as_ref()) else {
            return Ok(false);
        };
        let message = format!("`track = false`, but `{what}` needs the state of flows");
        let mut diagnostic = Diagnostic::new(message).at(self.line, ["track = false".into()]);
        for setting in &settings {
            diagnostic = diagnostic.note(format!("[default]  {setting}"));
        }
        for (rule, key) in needing().take(SHOWN) {
            diagnostic = diagnostic.at(rule.line, [rule.name.clone(), key]);
        }
        let more = needing().count().saturating_sub(SHOWN);
        if more > 0 {
            diagnostic = diagnostic.note(format!("… and {more} more rules"));
        }
        Err(diagnostic.help("leave `track` out: flows are tracked where something needs them"))
    }
}

/// Says whether a table of flows can have this size.
pub(super) fn check_size(size: u64) -> Option<u32> {
    u32::try_from(size).ok().filter(|size| SIZES.contains(size))
}

fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(1 << TICK_SHIFT);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The longest duration in the largest unit that comes to so many ticks.
fn of_ticks(count: u32) -> Duration {
    let nanoseconds = u64::from(count) << TICK_SHIFT;
    let seconds = Duration::from_secs(nanoseconds / 1_000_000_000);
    if ticks(seconds) == count {
        seconds
    } else {
        Duration::from_millis(nanoseconds / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn defaults_come_back_from_ticks() {
        let flows = Flows::default();
        assert_eq!(Flows::of_ticks(&flows.ticks()), flows.timeouts);
        assert_eq!(flows.ticks().handshake, 224, "30 s are 223.5 ticks");
        assert_eq!((flows.slots(), flows.half_open_slots()), (65_536, 65_536));
        let odd = Flows {
            size: 100_000,
            half_open: 1_025,
            ..flows
        };
        assert_eq!((odd.slots(), odd.half_open_slots()), (131_072, 2_048));
    }

    proptest! {
        #[test]
        fn a_timeout_is_never_shorter_than_said_and_comes_back(milliseconds in 1_000..=2_592_000_000_u64) {
            let timeout = Duration::from_millis(milliseconds);
            let count = ticks(timeout);
            prop_assert!(u128::from(count) << TICK_SHIFT >= timeout.as_nanos());
            prop_assert_eq!(ticks(of_ticks(count)), count);
            if milliseconds % 1_000 == 0 {
                prop_assert_eq!(of_ticks(count), timeout);
            }
        }
    }
}
