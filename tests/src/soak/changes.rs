//! Changes of the rules, the sets and the programs.

use std::fmt::Write as _;

use anyhow::Result;

use crate::{cli::Portdemux, generate::Random, lab::INTERFACE};

/// Rules that are there all the time, whatever they say: their counters have to be those of their ports.
pub(super) const RULES: [(&str, &str, u16, u16); 4] = [
    ("tcp-echo", "tcp", 7000, 7009),
    ("udp-echo", "udp", 7100, 7109),
    ("sctp", "sctp", 7200, 7200),
    ("long", "udp", 7300, 7300),
];

/// Where datagrams go that come in fragments.
pub(super) const LONG: u16 = 7300;

pub(super) struct Changes<'a> {
    portdemux: &'a Portdemux<'a>,
    random: Random,
    made: u64,
}

impl<'a> Changes<'a> {
    pub(super) const fn new(portdemux: &'a Portdemux<'a>, seed: u64) -> Self {
        Self {
            portdemux,
            random: Random::new(seed),
            made: 0,
        }
    }

    /// How many there were.
    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    /// Makes the first ruleset, before anything is attached.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.portdemux.ok(&["attach", "lo", "--mode", "generic"])?;
        self.apply()?;
        self.portdemux.ok(&["detach", "lo"])?;
        Ok(())
    }

    /// Makes one.
    pub(super) fn make_one(&mut self) -> Result<()> {
        self.made += 1;
        match self.random.below(16) {
            0 => {
                // The program is replaced by another one like it.
                self.portdemux.ok(&["attach", INTERFACE])?;
            }
            1 => self.run(&["flows", "kill", "--port", "7000-7009/tcp"])?,
            2 => self.run(&["add", "7400-7499/udp", "--name", "now", "--to", "drop"])?,
            3 => self.run(&["remove", "now"])?,
            4 => self.run(&["promote", "would"])?,
            5..=7 => {
                let source = self.source();
                self.run(&["set", "add", "banned", source, "--expires", "2s"])?;
            }
            8..=10 => {
                let source = self.source();
                self.run(&["set", "remove", "banned", source])?;
            }
            _ => self.apply()?,
        }
        Ok(())
    }

    /// Runs a command that may find nothing to do.
    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = self.portdemux.run(arguments)?;
        if output.code() == Some(1) {
            return Ok(());
        }
        output.success().map(drop)
    }

    fn source(&mut self) -> &'static str {
        let sources = [
            "192.0.2.1",
            "2001:db8::1",
            "198.51.100.0/24",
            "203.0.113.7",
            "2001:db8:7::/48",
        ];
        sources[self.random.below(sources.len())]
    }

    fn apply(&mut self) -> Result<()> {
        let text = self.text();
        self.portdemux.apply(&text).map(drop)
    }

    fn text(&mut self) -> String {
        let random = &mut self.random;
        let mut one_of = |words: &[&'static str]| words[random.below(words.len())];
        let mut text = format!(
            "[default]\ninbound = \"{}\"\nicmp = \"{}\"\nmalformed = \"{}\"\nfragments = \"track\"\n\
             [flows]\ntrack = true\nsize = 4096\nhalf_open = 1024\n\
             [sets]\nbanned = [{}]\n",
            one_of(&["drop", "reject", "pass"]),
            one_of(&["pass", "errors-only", "drop"]),
            one_of(&["drop", "pass"]),
            one_of(&["", "\"203.0.113.0/24\"", "\"192.0.2.1\"", "\"2001:db8::1\""]),
        );
        for (name, protocol, first, last) in RULES {
            let _ = writeln!(
                text,
                "[[rule]]\nname = \"{name}\"\nport = \"{first}-{last}/{protocol}\"\n{}\n{}",
                one_of(&[
                    "to = \"local\"",
                    "to = \"local\"",
                    "to = \"local\"",
                    "to = \"drop\"",
                    "to = \"reject\"",
                    "connections = \"established\"",
                ]),
                one_of(&[
                    "",
                    "",
                    "deny = \"@banned\"",
                    "from = [\"192.0.2.0/24\", \"2001:db8::/32\"]\ndeny = \"@banned\"",
                    "rate = \"500/s\"\nburst = 50",
                    "new_rate = \"20/s\"\nnew_burst = 5\nper = \"source\"",
                ]),
            );
        }
        text.push_str(one_of(&[
            "",
            "[[rule]]\nname = \"would\"\nport = \"7000-7109/tcp\"\nto = \"drop\"\nshadow = true\n",
            "[[rule]]\nname = \"would\"\nport = \"7500/udp\"\nrate = \"1/s\"\nshadow = true\n",
        ]));
        text.push_str(one_of(&[
            "",
            "[[rule]]\nname = \"from-web\"\nport = \"443/tcp\"\nrole = \"source\"\nconnections = \"established\"\n",
            "[[rule]]\nname = \"here\"\nport = \"0-1023/udp\"\naddress = [\"192.0.2.2\", \"2001:db8::2\"]\n",
        ]));
        text
    }
}
