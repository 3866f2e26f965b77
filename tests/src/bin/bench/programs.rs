//! The programs that are compared, and how long one of them takes.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use portdemux::{
    dataplane::{
        links,
        maps::{COUNTERS, Maps, RULESETS},
        objects,
        pins::{Lock, Places},
    },
    image,
    rules::file,
};
use portdemux_tests::bpffs::Bpffs;
use tempfile::TempDir;

/// An instance of portdemux that is attached to nothing, on a bpffs of its own.
pub(crate) struct Bench {
    pub(crate) maps: Maps,
    pub(crate) places: Places,
    _lock: Lock,
    _bpffs: Bpffs,
    _state: TempDir,
}

/// Which rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    None,
    One,
    AllPorts,
    Addresses,
}

impl Rules {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::One, Self::AllPorts, Self::Addresses];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "no rules",
            Self::One => "1 rule",
            Self::AllPorts => "all ports",
            Self::Addresses => "1,000 addresses",
        }
    }

    fn text(self) -> String {
        let mut text = String::new();
        match self {
            Self::None => {}
            Self::One => text.push_str("[[rule]]\nname = \"one\"\nport = \"443/tcp\"\n"),
            Self::AllPorts => {
                for protocol in ["tcp", "udp", "sctp"] {
                    let _ = writeln!(
                        text,
                        "[[rule]]\nname = \"{protocol}\"\nport = \"0-65535/{protocol}\""
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
        let places = Places {
            instance: "bench".parse().map_err(anyhow::Error::msg)?,
            bpffs: bpffs.path().into(),
            state: state.path().into(),
        };
        let lock = places.lock()?;
        let maps = places.open_or_create(&lock)?;
        Ok(Self {
            maps,
            places,
            _lock: lock,
            _bpffs: bpffs,
            _state: state,
        })
    }

    pub(crate) fn put_in_force(&self, rules: Rules) -> Result<()> {
        let ruleset = file::parse(rules.name(), &rules.text())?;
        let names: Vec<&str> = ruleset
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        self.maps
            .install(&names, [0; 32], |ids| image::compile(&ruleset, ids))?;
        Ok(())
    }

    /// The dispatcher on the maps of this instance.
    pub(crate) fn dispatcher(&self) -> Result<Program> {
        let object = links::load(objects::DISPATCHER, &self.places.pins(), 0)?;
        Program::load(object, links::PROGRAM)
    }

    /// A program to compare with; `port_offset` is where the destination port stands in the frame.
    pub(crate) fn baseline(&self, name: &'static str, port_offset: usize) -> Result<Program> {
        let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(_, error)| error)?)?;
        let port_offset = u32::try_from(port_offset)?;
        let mut loader = EbpfLoader::new();
        for name in [RULESETS, COUNTERS] {
            loader.map_pin_path(name, self.places.pins().join(name));
        }
        let object = loader
            .map_max_entries(COUNTERS, cpus)
            .map_max_entries("LIMIT_COUNTERS", cpus)
            .override_global("PORT_OFFSET", &port_offset, true)
            .load(objects::BASELINE)?;
        Program::load(object, name)
    }
}

/// A program that is loaded.
pub(crate) struct Program {
    object: Ebpf,
    name: &'static str,
}

impl Program {
    fn load(mut object: Ebpf, name: &'static str) -> Result<Self> {
        let program: &mut Xdp = object.program_mut(name).context(name)?.try_into()?;
        program.load()?;
        Ok(Self { object, name })
    }

    /// Nanoseconds for a run on `frame`, as the kernel measures them over `repeat` runs.
    pub(crate) fn time(&self, frame: &[u8], repeat: u32) -> Result<f64> {
        let program: &Xdp = self
            .object
            .program(self.name)
            .context(self.name)?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = program.test_run(options).context("run the program")?;
        Ok(result.duration.as_secs_f64() * 1e9)
    }
}
