//! `portdemux explain`: say what would become of a packet, or of every frame of a capture.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{CommandFactory as _, ValueEnum, error::ErrorKind};
use portdemux_common::{conntrack::Direction, reason::Reason, wire::Transport};

use super::Context;
use crate::{
    capture::{Capture, CaptureError},
    control::{AskedInstance, RulesText},
    dataplane::shadow_program::{ShadowKind, ShadowProgram},
    error::Advice,
    explain::{
        Basis,
        agreement::Agreement,
        capture::{self, Findings, Format, Ways},
        packet::{self, Endpoint, Flags},
        report::report as report_on,
    },
    figures::{counted, grouped},
    interface::watched,
};

/// Say what would become of a packet, and why
///
/// It explains one packet between two ends, or every frame of a capture. The code that decides is the one that runs
/// in the network card's path, under the rules in force or those of a file; with --rules and without --kernel it
/// takes no privileges. Nothing is sent, nothing is counted.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command"
)]
#[command(
    override_usage = "\
portdemux explain [OPTIONS] PROTO SRC:PORT DST:PORT
       portdemux explain [OPTIONS] --pcap FILE",
    after_help = "\
Examples:
  portdemux explain tcp 198.51.100.7:52341 203.0.113.10:22
  portdemux explain udp [2001:db8::7]:52341 [2001:db8::10]:53 --rules new.toml
  portdemux explain --pcap trace.pcap --json
  portdemux explain --pcap trace.pcap --kernel --log
  tcpdump -i eth0 -U -w - | portdemux explain --pcap -"
)]
pub(super) struct Args {
    /// The packet's protocol
    #[arg(
        value_name = "PROTO",
        required_unless_present = "pcap",
        requires = "source"
    )]
    protocol: Option<Protocol>,
    /// Where the packet comes from; an IPv6 address stands in brackets
    #[arg(value_name = "SRC:PORT", requires = "destination")]
    source: Option<Endpoint>,
    /// Where the packet goes
    #[arg(value_name = "DST:PORT")]
    destination: Option<Endpoint>,
    /// A pcap or pcapng file of Ethernet frames to explain one by one; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["protocol", "source", "destination"])]
    pcap: Option<PathBuf>,
    /// Explain under the rules of this file instead of those in force
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// What a TCP segment says: some of fin, syn, rst, psh, ack and urg, as in syn,ack; without, it is a syn
    #[arg(long, value_name = "FLAGS", conflicts_with = "pcap")]
    flags: Option<Flags>,
    /// The interface that the packet comes by: says so if no program is on it
    #[arg(long, value_name = "IFACE", conflicts_with = "rules")]
    interface: Option<String>,
    /// Explain only the frames of a capture that go this way
    ///
    /// A frame goes out if it comes from an address of this host and is for none. Nothing that goes out is held up: it has
    /// the reason egress. With --rules, without this, all frames are taken to come in.
    #[arg(long, value_name = "WAY", conflicts_with = "protocol")]
    direction: Option<Way>,
    /// Let each frame of a capture follow those before it
    ///
    /// What they make of flows and rates counts: the first packet opens a flow, the next ones are of it. The first frame is
    /// taken to come now, and the others as long after it as they were captured. Without, each is explained as if it came
    /// next.
    #[arg(long, conflicts_with = "protocol")]
    track: bool,
    /// Also give each frame to a copy of the program in the kernel, the shadow program, and fail if it disagrees
    #[arg(long)]
    kernel: bool,
    /// With --kernel, show what the shadow program logs about each frame
    ///
    /// The shadow program says what it read in the frame, and what it decided by which rule. Its lines stand below the
    /// frame, in JSON as a list with the key log.
    #[arg(long, requires = "kernel")]
    log: bool,
    /// Print a JSON object for each frame
    #[arg(long)]
    json: bool,
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    In,
    Out,
    Both,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    const fn transport(self) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
            Self::Sctp => Transport::Sctp,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let from_stdin = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    if from_stdin(&args.pcap) && from_stdin(&args.rules) {
        usage("standard input can be the capture or the rules file, not both");
    }
    if let Some(path) = &args.pcap {
        // First, as it is the more likely one to be wrong.
        let mut capture = Capture::open(path).map_err(|error| with_help(error, context))?;
        return explain_capture(args, context, &mut capture);
    }
    let (Some(protocol), Some(source), Some(destination)) =
        (args.protocol, args.source, args.destination)
    else {
        usage("a packet has a protocol, a source and a destination");
    };
    let transport = protocol.transport();
    if args.flags.is_some() && transport != Transport::Tcp {
        usage("only a TCP segment has flags");
    }
    let flags = args.flags.unwrap_or(Flags::SYN);
    let frame = packet::frame_with(transport, flags, source.0, destination.0)
        .unwrap_or_else(|error| usage(&error.to_string()));
    let instance = ask(args, context)?;
    let basis = basis(args, instance.as_ref())?;
    let mut agreement = agreement(args, &basis, instance.as_ref())?;
    let mut explained = basis.explain(1, &frame);
    if instance.is_some() {
        warn_of_own(context, &frame)?;
    }
    let log = match &mut agreement {
        Some(agreement) => agreement.check(&basis, &mut explained)?,
        None => None,
    };
    if args.json {
        context
            .output
            .line(serde_json::to_string(&explained.line(log))?);
    } else {
        let agrees = agreement
            .as_ref()
            .is_some_and(|agreement| agreement.result().is_ok());
        let log = log.unwrap_or_default();
        context
            .output
            .write(&report_on(&basis, &explained, agrees, &log));
        if let Some(instance) = &instance
            && let Some(line) = instance.socket(&basis, &explained)
        {
            context.output.line(line);
        }
        if !args.kernel && instance.is_some() && explained.decision.reason == Reason::RuleXsk {
            context
                .output
                .line("assumed     that a program takes frames there; --kernel asks");
        }
        if args.flags.is_none() && transport == Transport::Tcp && explained.depends_on_flags() {
            context
                .output
                .line("assumed     that it opens a connection; --flags says something else");
        }
    }
    agreement.map_or(Ok(()), |agreement| Ok(agreement.result()?))
}

fn explain_capture(
    args: &Args,
    context: &Context,
    capture: &mut Capture<Box<dyn std::io::Read>>,
) -> Result<()> {
    let instance = ask(args, context)?;
    let mut basis = basis(args, instance.as_ref())?;
    if args.track {
        basis = basis.tracking();
    }
    let mut agreement = agreement(args, &basis, instance.as_ref())?;
    let ways = ways(args)?;
    let format = if args.json {
        Format::Json
    } else {
        let (columns, _) = context.output.size();
        Format::Table { columns }
    };
    let write = |text: &str| {
        context.output.write(text);
        context.output.is_read()
    };
    let found = capture::explain(capture, &basis, agreement.as_mut(), format, &ways, write)?;
    if let Some(instance) = &instance {
        instance.warn_of_change(&basis);
    }
    let Some(Findings { tally, cut, error }) = found else {
        return Ok(());
    };
    if cut > 0 {
        context.output.warn(
            format!(
                "{} of {} frames were captured in part: they are explained as they stand, \
                 malformed if the packet is cut",
                grouped(cut),
                grouped(tally.frames())
            ),
            Some("capture whole frames: tcpdump -s 0"),
        );
    }
    let agreed = match &agreement {
        Some(agreement) => {
            tell(context, agreement);
            agreement.result()
        }
        None => Ok(()),
    };
    match (agreed, error) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(error)) => Err(with_help(error, context)),
        (Err(disagreement), error) => {
            if let Some(error) = error {
                context.output.warn(error, None);
            }
            Err(disagreement.into())
        }
    }
}

/// Says what the kernel was asked.
fn tell(context: &Context, agreement: &Agreement) {
    if agreement.result().is_ok() {
        context.output.note(format!(
            "the kernel agrees about {}",
            counted(agreement.compared, "frame")
        ));
    }
    if agreement.host_only > 0 {
        context.output.note(format!(
            "{} explained on the host only: the kernel tries programs on frames of {} to {} bytes",
            counted(agreement.host_only, "frame"),
            ShadowProgram::MIN_FRAME,
            grouped(ShadowProgram::MAX_FRAME as u64)
        ));
    }
}

/// Says if the packet that is asked about goes out instead of coming in.
fn warn_of_own(context: &Context, frame: &[u8]) -> Result<()> {
    let ways = Ways {
        addresses: own_addresses()?,
        only: None,
    };
    if ways.of(frame) == Direction::Sent {
        context.output.warn(
            "SRC is an address of this host: a packet from there goes out, and nothing that goes out is held up",
            Some(
                "this is what becomes of one that comes in; swap SRC and DST for the answer to it",
            ),
        );
    }
    Ok(())
}

/// The addresses of this host, those of loopback left out.
fn own_addresses() -> Result<BTreeSet<IpAddr>> {
    let host = watched(&BTreeSet::new())?;
    Ok(host
        .addresses
        .into_iter()
        .chain(host.elsewhere.into_keys())
        .collect())
}

/// Which way the frames of a capture go.
fn ways(args: &Args) -> Result<Ways> {
    if args.rules.is_some() && args.direction.is_none() {
        return Ok(Ways::default());
    }
    Ok(Ways {
        addresses: own_addresses()?,
        only: match args.direction {
            Some(Way::In) => Some(Direction::Received),
            Some(Way::Out) => Some(Direction::Sent),
            Some(Way::Both) | None => None,
        },
    })
}

fn agreement(
    args: &Args,
    basis: &Basis<'_>,
    instance: Option<&AskedInstance<'_>>,
) -> Result<Option<Agreement>> {
    if !args.kernel {
        return Ok(None);
    }
    if let Some(instance) = instance {
        instance.warn_of_other_versions();
    }
    let program = ShadowProgram::load(
        &basis.image,
        &ShadowKind {
            logs: args.log,
            instance: instance.and_then(AskedInstance::own_maps),
            flows_seed: basis.flows_seed(),
        },
    )?;
    Ok(Some(Agreement::new(program)))
}

/// The instance, unless the rules of a file are asked.
fn ask<'c>(args: &Args, context: &'c Context) -> Result<Option<AskedInstance<'c>>> {
    match args.rules {
        Some(_) => Ok(None),
        None => context.ask(args.interface.as_deref()).map(Some),
    }
}

/// The rules of the file, or those in force with what the instance remembers.
fn basis<'i>(args: &Args, instance: Option<&'i AskedInstance<'_>>) -> Result<Basis<'i>> {
    if let Some(path) = &args.rules {
        let rules = RulesText::to_know(path)?;
        return Basis::from_text(&rules.name, &rules.text);
    }
    let instance = instance.expect("invariant: it is open unless a file is named");
    Ok(instance.basis(args.pcap.is_none() && !args.json))
}

fn with_help(error: CaptureError, context: &Context) -> anyhow::Error {
    match error.help(&context.command()) {
        Some(help) => anyhow::Error::new(error).context(Advice(help)),
        None => error.into(),
    }
}

/// Ends the process as clap does for arguments that make no sense.
fn usage(message: &str) -> ! {
    let mut command = crate::cli::Cli::command();
    command.build();
    let command = command.find_subcommand_mut("explain");
    command
        .expect("invariant: this verb is one of the command's")
        .error(ErrorKind::ValueValidation, message)
        .exit()
}
