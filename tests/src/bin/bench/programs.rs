//! The programs that are compared, and how long one of them takes.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{CpuMap, xdp::DevMap},
    programs::{self, TestRun as _, TestRunOptions, TestRunResult, Xdp},
};
use ipnet::IpNet;
use portdemux::{
    change::{self, InForce, Request},
    dataplane::{egress, links, objects},
    image,
    instance::{InstancePaths, Writer},
    maps::{COUNTERS, OWN_COUNTERS, RULESETS, TABLES, flow_directory, flows},
    members::{self, Changed},
    rules::{
        file::{self, Reading},
        source::Becomes,
    },
};
use portdemux_common::policy::Timeouts;
use portdemux_tests::bpffs::Bpffs;
use tempfile::TempDir;

/// An instance of portdemux that is attached to nothing, on a bpffs of its own.
pub(crate) struct Bench {
    pub(crate) writer: Writer,
    _bpffs: Bpffs,
    _state: TempDir,
}

/// How a program draws the source of a frame: one of these numbers, mixed to an address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draw {
    pub(crate) is_v6: bool,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Which rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    None,
    One,
    AllPorts,
    Addresses,
    /// One rule that lists one source.
    OneList,
    /// Twenty rules, 443's the last of them, each with a list of its own, of 60,000 prefixes in all.
    ManyLists,
    /// Nothing comes in but replies, and what is for one port. Measured by itself.
    Flows,
    /// One rule for 443, and others with everything that rules can ask. Compared with [`Self::One`].
    Others,
    /// 443 of TCP and UDP is dropped. Compared with another program and not with the limit.
    Dropped,
}

/// Lists, sets, rates, shadows, addresses, both roles and fragments: none of it is for 443.
const OTHERS: &str = r#"
[default]
fragments = "track"

[sets]
office = ["198.51.100.0/24", "2001:db8:5::/48"]

[[rule]]
name = "one"
port = ["443/tcp", "443/udp"]

[[rule]]
port = "22/tcp"
from = "@office"
deny = "198.51.100.7"

[[rule]]
port = "53/udp"
rate = "1000/s"
per = "source"

[[rule]]
port = "8443/tcp"
address = ["203.0.113.10", "2001:db8::10"]
to = "reject"

[[rule]]
port = "123/udp"
role = "source"

[[rule]]
name = "would"
port = "25/tcp"
to = "drop"
shadow = true
"#;

impl Rules {
    pub(crate) const ALL: [Self; 6] = [
        Self::None,
        Self::One,
        Self::AllPorts,
        Self::Addresses,
        Self::OneList,
        Self::ManyLists,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "no rules",
            Self::One => "1 rule",
            Self::AllPorts => "all ports",
            Self::Addresses => "1,000 addresses",
            Self::OneList => "1 source",
            Self::ManyLists => "60,000 sources",
            Self::Flows => "replies and one port",
            Self::Others => "others ask more",
            Self::Dropped => "443 dropped",
        }
    }

    /// For how long flows are remembered under [`Rules::Flows`].
    pub(crate) fn timeouts() -> Result<Timeouts> {
        let ruleset = file::parse("flows", &Self::Flows.text())?;
        Ok(ruleset.flows().context("it tracks no flows")?.ticks())
    }

    fn text(self) -> String {
        let mut text = String::new();
        match self {
            Self::None => {}
            Self::Flows => {
                text.push_str("[default]\ninbound = \"drop\"\n[[rule]]\nport = \"22/tcp\"\n");
            }
            Self::Others => text.push_str(OTHERS),
            Self::One => text.push_str("[[rule]]\nname = \"one\"\nport = \"443/tcp\"\n"),
            Self::Dropped => text.push_str(
                "[[rule]]\nname = \"no\"\nport = [\"443/tcp\", \"443/udp\"]\nto = \"drop\"\n",
            ),
            Self::AllPorts => {
                for protocol in ["tcp", "udp", "sctp"] {
                    let _ = writeln!(
                        text,
                        "[[rule]]\nname = \"{protocol}\"\nport = \"0-65535/{protocol}\""
                    );
                }
            }
            Self::OneList => text.push_str(
                "[[rule]]\nport = [\"443/tcp\", \"443/udp\"]\nfrom = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n",
            ),
            Self::ManyLists => {
                for list in 0..20 {
                    let prefixes = (0..1500).flat_map(|number| {
                        let (v4, v6) = (number * 20 + list, number * 20 + list);
                        [
                            format!("\"{}\"", Ipv4Addr::from(0x0b00_0000 + 64 * v4)),
                            format!("\"2001:db8:{:x}:{:x}::/64\"", v6 >> 8, v6 & 0xff),
                        ]
                    });
                    let mut prefixes: Vec<_> = prefixes.collect();
                    prefixes.extend(["\"192.0.2.0/24\"".into(), "\"2001:db8::/64\"".into()]);
                    prefixes.dedup();
                    let port = 424 + list;
                    let _ = writeln!(
                        text,
                        "[[rule]]\nport = [\"{port}/tcp\", \"{port}/udp\"]\nfrom = [{}]",
                        prefixes.join(", ")
                    );
                }
            }
            // 500 of each family; the frames' own destinations are among them.
            Self::Addresses => {
                for number in 1..=500 {
                    let (high, low) = (number / 250, number % 250);
                    let v4 = if number == 1 {
                        "192.0.2.2".into()
                    } else {
                        format!("198.51.{high}.{low}")
                    };
                    let v6 = format!("2001:db8::{:x}", number + 1);
                    let _ = writeln!(
                        text,
                        "[[rule]]\nname = \"a{number}\"\nport = [\"443/tcp\", \"443/udp\"]\naddress = [\"{v4}\", \"{v6}\"]"
                    );
                }
            }
        }
        text
    }
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let bpffs = Bpffs::new()?;
        let state = tempfile::tempdir()?;
        let paths = InstancePaths::new(
            "bench".parse().map_err(anyhow::Error::msg)?,
            bpffs.path().into(),
            state.path().into(),
        );
        Ok(Self {
            writer: paths.lock()?.open_or_create()?,
            _bpffs: bpffs,
            _state: state,
        })
    }

    pub(crate) fn put_in_force(&self, rules: Rules) -> Result<()> {
        self.put_text_in_force(rules.name(), &rules.text())
    }

    pub(crate) fn put_text_in_force(&self, name: &str, text: &str) -> Result<()> {
        let ruleset = file::parse(name, text)?;
        let names: Vec<&str> = ruleset
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        self.writer.maps.install(
            &names,
            [0; 32],
            |ids| image::compile(&ruleset, ids),
            &portdemux::dataplane::renew,
        )?;
        Ok(())
    }

    /// Puts a text in force, with its record.
    pub(crate) fn change_text(&self, name: &str, text: String) -> Result<()> {
        let request = Request {
            text,
            source: None,
            name,
            reading: Reading::Known,
            dry_run: false,
            confirm: None,
        };
        change::change(&self.writer, || None, request, |_| Ok(()))?;
        Ok(())
    }

    /// Makes a prefix a member of a set.
    pub(crate) fn enter(&self, in_force: &InForce, set: &str, prefix: IpNet) -> Result<Changed> {
        let wish = [(prefix, Becomes::Member(None))];
        members::change(&self.writer, in_force, set, &wish, None)
    }

    /// A program that sends every frame to one target, and does nothing else.
    pub(crate) fn redirecting(&self, to: OneTarget) -> Result<Program> {
        let mut program = self.baseline(to.program(), 0)?;
        if let Program::Ours { object, .. } = &mut program {
            match to {
                OneTarget::Interface(index) => {
                    let map = object.map_mut("ONE_DEVICE").context("ONE_DEVICE")?;
                    DevMap::try_from(map)?.set(0, index, None, 0)?;
                }
                OneTarget::Cpu { queue } => {
                    let map = object.map_mut("ONE_CPU").context("ONE_CPU")?;
                    CpuMap::try_from(map)?.set(0, queue, None, 0)?;
                }
            }
        }
        Ok(program)
    }

    /// The dispatcher on the maps of this instance.
    pub(crate) fn dispatcher(&self) -> Result<Program> {
        let object = links::load(&self.writer.maps, 0, None)?;
        Program::load(object, links::PROGRAM)
    }

    /// The dispatcher that tracks flows, on the maps of this instance.
    pub(crate) fn flow_dispatcher(&self) -> Result<Program> {
        self.tracking(links::FLOW_PROGRAM)
    }

    /// The program that sees what is sent, on the maps of this instance.
    pub(crate) fn egress(&self) -> Result<Program> {
        self.tracking(egress::PROGRAM)
    }

    fn tracking(&self, name: &'static str) -> Result<Program> {
        let object = links::load(&self.writer.maps, 0, self.writer.maps.shape())?;
        Program::load(object, name)
    }

    /// A program to compare with; `transport` is where the transport header begins in the frame.
    pub(crate) fn baseline(&self, name: &'static str, transport: usize) -> Result<Program> {
        self.with_sources(name, transport, Draw::default())
    }

    /// The same; those whose name ends with `_source` draw the frame's source so.
    pub(crate) fn with_sources(
        &self,
        name: &'static str,
        transport: usize,
        draw: Draw,
    ) -> Result<Program> {
        Program::load(self.baselines(transport, draw)?, name)
    }

    /// All programs to compare with, none of them loaded.
    pub(crate) fn baselines(&self, transport: usize, draw: Draw) -> Result<Ebpf> {
        let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(_, error)| error)?)?;
        let transport = u32::try_from(transport)?;
        let mut loader = EbpfLoader::new();
        for name in [RULESETS, COUNTERS, OWN_COUNTERS, TABLES] {
            loader.map_pin_path(name, self.writer.paths.pins().join(name));
        }
        let shape = self.writer.maps.shape();
        if shape.is_some() {
            let tables = flow_directory::directory(&self.writer.paths.pins());
            for name in flows::ALL {
                loader.map_pin_path(name, tables.join(name));
            }
        }
        let shape = shape.unwrap_or_default();
        let object = loader
            .map_max_entries("LIMIT_COUNTERS", cpus)
            .override_global("FLOWS_MASK", &shape.known, true)
            .override_global("HALF_OPEN_MASK", &shape.half_open, true)
            .override_global("FLOWS_SEED", &shape.seed, true)
            .override_global("TRANSPORT", &transport, true)
            .override_global("SOURCE_V6", &u32::from(draw.is_v6), true)
            .override_global("SOURCE_FIRST", &draw.first, true)
            .override_global("SOURCE_COUNT", &draw.count, true)
            .load(objects::BASELINE)?;
        Ok(object)
    }
}

/// Where a program sends every frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OneTarget {
    /// An interface, by its index.
    Interface(u32),
    /// CPU 0, for which so many frames can wait.
    Cpu { queue: u32 },
}

impl OneTarget {
    const fn program(self) -> &'static str {
        match self {
            Self::Interface(_) => "redirect_interface",
            Self::Cpu { .. } => "redirect_cpu",
        }
    }
}

/// Linux, include/uapi/linux/bpf.h, `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_REDIRECT: u32 = 4;

/// A program that is loaded.
pub(crate) enum Program {
    /// One of this project's, and the object it is part of.
    Ours { object: Ebpf, name: &'static str },
    /// One that somebody else has loaded.
    Loaded(Box<Xdp>),
}

impl Program {
    fn load(mut object: Ebpf, name: &'static str) -> Result<Self> {
        let program = object.program_mut(name).context(name)?;
        if let programs::Program::SchedClassifier(program) = program {
            program.load()?;
        } else {
            <&mut Xdp>::try_from(program)?.load()?;
        }
        Ok(Self::Ours { object, name })
    }

    /// Nanoseconds for a run on `frame`, as the kernel measures them over `repeat` runs.
    pub(crate) fn time(&self, frame: &[u8], repeat: u32) -> Result<f64> {
        Ok(self.run(frame, repeat)?.duration.as_secs_f64() * 1e9)
    }

    /// Whether it drops `frame`.
    pub(crate) fn drops(&self, frame: &[u8]) -> Result<bool> {
        Ok(self.run(frame, 1)?.return_value == XDP_DROP)
    }

    /// Whether it sends `frame` to a target that is there.
    pub(crate) fn redirects(&self, frame: &[u8]) -> Result<bool> {
        Ok(self.run(frame, 1)?.return_value == XDP_REDIRECT)
    }

    fn run(&self, frame: &[u8], repeat: u32) -> Result<TestRunResult> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let run = match self {
            Self::Loaded(program) => program.test_run(options),
            Self::Ours { object, name } => {
                let program = object.program(name).context(*name)?;
                if let programs::Program::SchedClassifier(program) = program {
                    program.test_run(options)
                } else {
                    <&Xdp>::try_from(program)?.test_run(options)
                }
            }
        };
        run.context("run the program")
    }
}
