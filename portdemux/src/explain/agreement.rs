//! Whether the kernel says the same about a frame as the host.

use std::fmt::Write as _;

use anyhow::Result;
use portdemux_common::{
    conntrack::Direction,
    parse::{Class, Fragment},
    reason::{Reason, Verdict},
    trace::Trace,
};

use super::{
    Basis, Explained,
    explained::{class_name, fragment_name},
};
use crate::{
    dataplane::shadow_program::{self, ShadowProgram, ShadowRun},
    figures::grouped,
};

/// How many disagreements are written out; of more only the number is told.
const SHOWN: usize = 10;

/// The kernel's side, and how often it was asked and what it said.
#[derive(Debug)]
pub struct Agreement {
    program: ShadowProgram,
    /// Frames that both sides decided about.
    pub compared: u64,
    /// Frames that the kernel does not give to a program: too short or too long.
    pub host_only: u64,
    disagreements: u64,
    shown: String,
}

/// The kernel's program decided otherwise than the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel and the host disagree about {disagreements} of {compared} frames{shown}")]
pub struct Disagreement {
    disagreements: String,
    compared: String,
    shown: String,
}

impl Agreement {
    /// Asks this shadow program.
    #[must_use]
    pub const fn new(program: ShadowProgram) -> Self {
        Self {
            program,
            compared: 0,
            host_only: 0,
            disagreements: 0,
            shown: String::new(),
        }
    }

    /// Gives a frame that was explained last to the kernel, too, and notes where it says something else. Whether a program
    /// takes raw frames the kernel alone knows: that is added to what is explained. Returns what the
    /// program logged, if it was loaded to log; of a frame that the kernel does not take, nothing.
    ///
    /// # Errors
    ///
    /// The kernel does not run the program.
    pub fn check(
        &mut self,
        basis: &Basis<'_>,
        explained: &mut Explained<'_>,
    ) -> Result<Option<Vec<String>>> {
        // What goes out meets another program, which holds nothing up.
        if explained.direction == Direction::Sent {
            return Ok(self.program.take_log());
        }
        if !ShadowProgram::takes(explained.bytes.len()) {
            self.host_only += 1;
            return Ok(self.program.take_log());
        }
        basis.lend_state(&self.program);
        let run = self.program.run(explained.bytes)?;
        let log = self.program.take_log();
        self.compared += 1;
        explained.know_of_xsk(&run.trace);
        let differences = differences(explained, &run);
        if differences.is_empty() {
            return Ok(log);
        }
        self.disagreements += 1;
        if self.disagreements <= SHOWN as u64 {
            let _ = write!(
                self.shown,
                "\n  frame {}, {explained}",
                grouped(explained.number)
            );
            for Difference { what, host, kernel } in differences {
                let _ = write!(self.shown, "\n    {what}: host {host}, kernel {kernel}");
            }
        }
        Ok(log)
    }

    /// Says whether both sides agreed about every frame.
    ///
    /// # Errors
    ///
    /// They did not.
    pub fn result(&self) -> Result<(), Disagreement> {
        if self.disagreements == 0 {
            return Ok(());
        }
        let mut shown = self.shown.clone();
        if self.disagreements > SHOWN as u64 {
            let more = self.disagreements - SHOWN as u64;
            let _ = write!(shown, "\n  … and about {} more", grouped(more));
        }
        Err(Disagreement {
            disagreements: grouped(self.disagreements),
            compared: grouped(self.compared),
            shown,
        })
    }
}

/// Something that the two sides say differently about a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub what: &'static str,
    /// What the host says.
    pub host: String,
    /// What the kernel says.
    pub kernel: String,
}

/// What the two sides say differently about a frame, verdict and reason first.
#[must_use]
pub fn differences(explained: &Explained<'_>, run: &ShadowRun) -> Vec<Difference> {
    let (host, kernel) = (explained.trace(), run.trace);
    let mut found = Vec::new();
    let actions = shadow_program::actions_of(explained.decision.verdict);
    if !actions.contains(&run.action) {
        let names: Vec<_> = actions
            .iter()
            .map(|&action| shadow_program::action_name(action))
            .collect();
        found.push(Difference {
            what: "action",
            host: names.join(" or "),
            kernel: shadow_program::action_name(run.action).into(),
        });
    }
    if host == kernel {
        return found;
    }
    for (what, say) in FIELDS {
        let (host, kernel) = (say(&host), say(&kernel));
        if host != kernel {
            found.push(Difference { what, host, kernel });
        }
    }
    if found.is_empty() {
        found.push(Difference {
            what: "trace",
            host: format!("{host:?}"),
            kernel: format!("{kernel:?}"),
        });
    }
    found
}

type Say = fn(&Trace) -> String;

/// Everything in a trace, as it is told to people.
const FIELDS: [(&str, Say); 16] = [
    ("verdict", |trace| {
        named(trace.verdict, &Verdict::ALL, Verdict::name)
    }),
    ("reason", |trace| {
        named(trace.reason, Reason::ALL, Reason::name)
    }),
    ("rule", |trace| {
        let entry = trace.entry;
        if entry.is_claimed() {
            format!("id {}, {:?}", entry.rule(), entry.action())
        } else {
            "none".into()
        }
    }),
    ("class", |trace| named(trace.class, &CLASSES, class_name)),
    ("version", |trace| trace.version.to_string()),
    ("protocol", |trace| trace.protocol.to_string()),
    ("source", |trace| address(trace, &trace.source)),
    ("destination", |trace| address(trace, &trace.destination)),
    ("source port", |trace| {
        u16::from_be_bytes(trace.source_port).to_string()
    }),
    ("destination port", |trace| {
        u16::from_be_bytes(trace.destination_port).to_string()
    }),
    ("fragment", |trace| {
        named(trace.fragment, &FRAGMENTS, fragment_name)
    }),
    ("vlan tags", |trace| trace.vlan_count.to_string()),
    ("vlan", |trace| format!("{:?}", trace.vlans)),
    ("IP header offset", |trace| trace.network.to_string()),
    ("header offset", |trace| trace.payload.to_string()),
    ("length", |trace| trace.length.to_string()),
];

const CLASSES: [Class; 4] = [Class::Ports, Class::NoPorts, Class::NonIp, Class::Malformed];
const FRAGMENTS: [Fragment; 3] = [Fragment::None, Fragment::First, Fragment::Later];

fn named<T: Copy>(index: u8, all: &[T], name: fn(T) -> &'static str) -> String {
    match all.get(usize::from(index)) {
        Some(&known) => name(known).into(),
        None => format!("unknown number {index}"),
    }
}

fn address(trace: &Trace, bytes: &[u8; 16]) -> String {
    let [a, b, c, d, ..] = *bytes;
    match trace.version {
        4 => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
        6 => std::net::Ipv6Addr::from(*bytes).to_string(),
        _ => "none".into(),
    }
}
