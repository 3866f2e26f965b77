//! The shadow program: the same code in the kernel, on frames that user space gives it.
//!
//! It decides and counts as the attached program does, but in maps of its own that are pinned
//! nowhere: no packet of the machine ever meets it, no counter of an instance moves, and it is gone
//! with this process. What it saw in a frame it writes down as a [`Trace`], which can be held against
//! what the host makes of the same frame.

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use bytemuck::Zeroable as _;
use portdemux_common::{
    blocks::{BYTES, OWN, Own},
    conntrack,
    counters::{BLOCKS, FLOW_BLOCKS},
    fragments,
    ids::Generation,
    limits::{self, LimitWords},
    reason::Verdict,
    reject::RejectReply,
    ruleset::{LINE, RulesetImage, Rulesets},
    trace::Trace,
};

use super::{links, log::ProgramLog, objects};
use crate::{
    dataplane::refused,
    host::State,
    image::{self, Compiled},
    maps::{
        ANSWERS, COUNTERS, CPUS, DEVICES, FRAGMENTS, GENERATION, LIMITS, MACS, Maps, OWN_COUNTERS,
        RULESETS, SOCKETS, STEERING, XSKS,
        blocks::Blocks,
        counters::Counters,
        earlier::Earlier,
        flows::{FLOW_COUNTERS, FLOWS, HALF_OPEN},
        half,
        mapped::Mapped,
        possible_cpus,
        tables::{self, TABLES},
        write_head,
    },
};

/// The program's name in its object.
const PROGRAM: &str = "shadow_program";
/// The program's name where flows are tracked.
const FLOW_PROGRAM: &str = "shadow_flows";
/// The program that writes down what a frame says.
const PARSER: &str = "portdemux_parse";
/// Name of the map that says at which time the program runs.
const NOW: &str = "NOW";
/// What the packet finds at targets and sockets, which is the instance's where there is one.
const PRESENCE: [&str; 6] = [SOCKETS, STEERING, DEVICES, MACS, CPUS, XSKS];
/// Name of the map in which the program writes down what it saw.
const TRACE: &str = "TRACE";

/// Words of a trace, the half one at its end included: an array's values are padded to 8 bytes.
const TRACE_WORDS: usize = size_of::<Trace>().div_ceil(size_of::<u64>());
/// How many words the tables of a ruleset can have at least that is put in force later.
const TABLE_WORDS: usize = 1 << 12;
/// What no program writes into a trace, for [`Trace::class`] and all else.
const UNWRITTEN: u64 = u64::MAX;
/// The level at which a program logs nothing, and the verifier takes out what would do it.
const LOG_NOTHING: u8 = 0;

/// A copy of the program in the kernel that is attached to nothing.
#[derive(Debug)]
pub struct ShadowProgram {
    /// Holds the program and keeps its maps.
    object: Ebpf,
    rulesets: Mapped,
    tables: Mapped,
    /// How many words of [`Self::tables`] each of two rulesets has.
    room: usize,
    trace: Mapped,
    answers: Mapped,
    now: Mapped,
    remembered: Remembered,
    /// The name of the program.
    program: &'static str,
    counters: Counters,
    log: Option<ProgramLog>,
}

/// What the program remembers from frame to frame.
#[derive(Debug)]
struct Remembered {
    flows: Mapped,
    half_open: Mapped,
    fragments: Mapped,
    limits: Mapped,
}

/// Which program the shadow program is of.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShadowKind<'i> {
    /// Whether it logs what it does with a frame.
    pub logs: bool,
    /// The instance whose sockets, interfaces, CPUs and programs its packets find; else there are none.
    pub instance: Option<&'i Maps>,
    /// The secret of the tables of flows.
    pub flows_seed: u64,
}

/// What the program did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowRun {
    /// The XDP action that it returned (Linux `include/uapi/linux/bpf.h`, `enum xdp_action`).
    pub action: u32,
    /// What it wrote down.
    pub trace: Trace,
}

impl ShadowProgram {
    /// The shortest frame that the kernel gives to a program (`bpf_prog_test_run_xdp`: `ETH_HLEN`).
    pub const MIN_FRAME: usize = 14;
    /// The longest frame that the kernel gives to a program: 17 pages (`MAX_SKB_FRAGS`) besides the
    /// first.
    pub const MAX_FRAME: usize = 17 * 4096;

    /// Loads the program into the kernel with a ruleset.
    ///
    /// # Errors
    ///
    /// The capabilities for it are missing, or the kernel refuses the program.
    pub fn load(ruleset: &Compiled, kind: &ShadowKind<'_>) -> Result<Self> {
        links::check_capabilities()?;
        let level = if kind.logs {
            aya_log::Level::Info as u8
        } else {
            LOG_NOTHING
        };
        let finds_sockets = u32::from(kind.instance.is_some());
        let mut loader = EbpfLoader::new();
        if let Some(instance) = kind.instance {
            for name in PRESENCE {
                loader.map_pin_path(name, instance.directory.join(name));
            }
        }
        let program = if ruleset.header.defaults.flows == 0 {
            PROGRAM
        } else {
            FLOW_PROGRAM
        };
        let cpus = possible_cpus()?;
        let room = TABLE_WORDS.max(image::index(&ruleset.header).words as usize);
        let words = ruleset.sources.len().next_multiple_of(LINE) + 2 * room;
        loader
            .map_max_entries(COUNTERS, u32::try_from(BLOCKS)?)
            .map_max_entries(FLOW_COUNTERS, u32::try_from(FLOW_BLOCKS)?)
            .override_global("FINDS_SOCKETS", &finds_sockets, true)
            .override_global("FLOWS_SEED", &kind.flows_seed, true)
            .map_max_entries(OWN_COUNTERS, u32::try_from(cpus)?)
            .map_max_entries(CPUS, u32::try_from(cpus)?)
            .map_max_entries(TABLES, u32::try_from(words / LINE)?)
            .override_global(aya_log::LEVEL, &level, true);
        let mut object = objects::prepared(&mut loader, objects::SHADOW, "the shadow program")?;
        let shared = map(&object, COUNTERS, BLOCKS * BYTES)?;
        let blocks = Blocks::new(
            shared,
            map(&object, OWN_COUNTERS, cpus * size_of::<Own>())?,
            cpus,
        );
        blocks.allot(OWN);
        let mut program = Self {
            rulesets: map(&object, RULESETS, size_of::<Rulesets>())?,
            tables: map(&object, TABLES, words * size_of::<u64>())?,
            room,
            trace: map(&object, TRACE, TRACE_WORDS * size_of::<u64>())?,
            answers: map(&object, ANSWERS, size_of::<u64>())?,
            now: map(&object, NOW, size_of::<u64>())?,
            remembered: Remembered {
                flows: map(
                    &object,
                    FLOWS,
                    size_of::<conntrack::table::FlowBucket<u64>>(),
                )?,
                half_open: map(
                    &object,
                    HALF_OPEN,
                    size_of::<conntrack::table::FlowBucket<u64>>(),
                )?,
                fragments: map(&object, FRAGMENTS, size_of::<fragments::Buckets<u64>>())?,
                limits: map(&object, LIMITS, size_of::<LimitWords>())?,
            },
            program,
            counters: Counters {
                own: Some(Arc::new(blocks)),
                earlier: Earlier::default(),
            },
            log: match level {
                LOG_NOTHING => None,
                _ => Some(ProgramLog::new(&mut object)?),
            },
            object: {
                for name in [PARSER, program] {
                    let program = self::program(&mut object, name)?;
                    refused::load("the shadow program", || program.load())?;
                }
                object
            },
        };
        program.tables.write(0, &ruleset.sources);
        program.set_ruleset(ruleset)?;
        Ok(program)
    }

    /// Puts a ruleset in force whose sources are those that were loaded: in the half of its generation, as
    /// in an instance. Counters stay.
    ///
    /// # Errors
    ///
    /// It needs more room than the one that was loaded.
    pub fn set_ruleset(&mut self, image: &RulesetImage) -> Result<()> {
        let generation = Generation(image.header.generation);
        let mut header = image.header;
        header.tables = image::index(&header);
        anyhow::ensure!(
            header.tables.words as usize <= self.room,
            "the ruleset has larger tables than the one that was loaded"
        );
        let end = self.tables.bytes() / size_of::<u64>();
        let begin = end - (1 + generation.half() as usize) * self.room;
        tables::begin_at(&mut header, begin)?;
        tables::write(&self.tables, &header.tables, image);
        write_head(&self.rulesets, half(generation), &image.head, &header);
        self.rulesets
            .word(GENERATION)
            .store(generation.0, Ordering::Release);
        Ok(())
    }

    /// Writes what stands in the buckets that a packet asks for, as the host found it, and the time at which it comes:
    /// `CLOCK_MONOTONIC` in nanoseconds.
    ///
    /// The tables of flows have one bucket here, whatever its number in the instance.
    pub fn set_state(&self, state: &State<'_>, now: u64) {
        const FRAGMENT: usize = size_of::<fragments::FragmentBucket<u64>>();
        const SOURCE: usize = size_of::<limits::RateBucket<u64>>();
        let Remembered {
            flows,
            half_open,
            fragments,
            limits,
        } = &self.remembered;
        self.now.write(0, &[now]);
        for (_, words) in &*state.known.before() {
            flows.write(0, words);
        }
        for (_, words) in &*state.half_open.before() {
            half_open.write(0, words);
        }
        fragments.write(
            offset_of!(fragments::Buckets<u64>, seed),
            &[state.fragments_seed],
        );
        let first = offset_of!(fragments::Buckets<u64>, buckets);
        for (at, words) in &*state.fragments.before() {
            fragments.write(first + *at as usize * FRAGMENT, words);
        }
        for (rule, words) in &*state.rates.before() {
            limits.write(*rule as usize * size_of::<[u64; 2]>(), words);
        }
        let first = offset_of!(LimitWords, sources);
        for (at, words) in &*state.source_rates.before() {
            limits.write(first + *at as usize * SOURCE, words);
        }
    }

    /// Whether the kernel gives a frame of this length to a program.
    #[must_use]
    pub const fn takes(length: usize) -> bool {
        Self::MIN_FRAME <= length && length <= Self::MAX_FRAME
    }

    /// Runs the program once on a frame.
    ///
    /// # Errors
    ///
    /// The kernel does not run it, as with a frame that it does not take ([`Self::takes`]), or the
    /// program ended without a decision.
    pub fn run(&mut self, frame: &[u8]) -> Result<ShadowRun> {
        self.run_to(frame, None).map(|(run, _)| run)
    }

    /// Runs the program once on a frame, as if it were the first, and returns what it sends back if it
    /// answers.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn answer(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>> {
        self.answers.write(0, &[0]);
        let mut answer = vec![0; frame.len() + RejectReply::MOST_GROWTH];
        let (run, length) = self.run_to(frame, Some(&mut answer))?;
        answer.truncate(length);
        Ok((run.action == 3).then_some(answer))
    }

    /// Runs the program once on a frame; the frame that it leaves goes to `after`, its length is returned.
    fn run_to(&mut self, frame: &[u8], after: Option<&mut [u8]>) -> Result<(ShadowRun, usize)> {
        self.trace.write(0, &[UNWRITTEN; TRACE_WORDS]);
        let mut run = |name, after| {
            program(&mut self.object, name)?
                .test_run(TestRunOptions {
                    data_in: Some(frame),
                    data_out: after,
                    ..TestRunOptions::new()
                })
                .with_context(|| format!("run the program on a frame of {} bytes", frame.len()))
        };
        run(PARSER, None)?;
        let result = run(self.program, after)?;
        let mut words = [0; TRACE_WORDS];
        self.trace.read(0, &mut words);
        anyhow::ensure!(
            words.iter().any(|&word| word != UNWRITTEN),
            "the program ended without a decision: {}",
            action_name(result.return_value)
        );
        let mut trace = Trace::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut trace);
        let length = bytes.len();
        bytes.copy_from_slice(&bytemuck::cast_slice(&words)[..length]);
        let run = ShadowRun {
            action: result.return_value,
            trace,
        };
        Ok((run, result.data_size_out as usize))
    }

    /// Takes what the program logged since the last time, if it was loaded to log.
    pub fn take_log(&mut self) -> Option<Vec<String>> {
        self.log.as_mut().map(ProgramLog::take)
    }

    /// What the program counted since it was loaded; its frames are those of the interface at
    /// slot 0.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The XDP actions that a verdict can come to, the usual one first.
#[must_use]
pub const fn actions_of(verdict: Verdict) -> &'static [u32] {
    match verdict {
        Verdict::Drop => &[1],
        Verdict::Pass => &[2],
        // Who is told depends on what else was rejected a moment ago.
        Verdict::Reject => &[3, 1],
        // What becomes of it where its target is missing, the rule says.
        Verdict::Redirect => &[4, 2, 1, 3],
    }
}

/// The kernel's name of an XDP action.
#[must_use]
pub const fn action_name(action: u32) -> &'static str {
    match action {
        0 => "XDP_ABORTED",
        1 => "XDP_DROP",
        2 => "XDP_PASS",
        3 => "XDP_TX",
        4 => "XDP_REDIRECT",
        _ => "no XDP action",
    }
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp> {
    let program = object
        .program_mut(name)
        .context("the object has no program")?;
    Ok(program.try_into()?)
}

fn map(object: &Ebpf, name: &str, bytes: usize) -> Result<Mapped> {
    let Some(Map::Array(data)) = object.map(name) else {
        anyhow::bail!("the object has no array {name}");
    };
    let fd: BorrowedFd<'_> = data.fd().as_fd();
    Mapped::new(fd, bytes).with_context(|| format!("map {name} into memory"))
}
