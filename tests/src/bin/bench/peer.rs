//! What a packet costs that is dropped by its port, here and by Debian's `xdp-filter`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, loaded_programs};
use aya_obj::programs::XdpAttachType;
use portdemux_tests::{
    frames,
    netns::Netns,
    veth::{self, End, Offloads},
};
use serde::Serialize;

use super::{
    datapath::interleave,
    programs::{Bench, Program, Rules},
    statistics::Spread,
};

const PROGRAM: &str = "xdp-filter";

/// What dropping a frame by its destination port costs, in nanoseconds over an empty program.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    frame: &'static str,
    /// `xdp-filter` with the one protocol switched on.
    peer_one_protocol: Spread,
    /// `xdp-filter` with all it has switched on, as it comes.
    peer_all: Spread,
    portdemux: Spread,
}

/// Compares with `xdp-filter`; nothing where it is not installed.
pub(crate) fn measure(rounds: usize, repeat: u32) -> Result<Option<Vec<Row>>> {
    if !is_installed() {
        return Ok(None);
    }
    let bench = Bench::new()?;
    bench.put_in_force(Rules::Dropped)?;
    let tcp = || frames::tcp(40_000, 443);
    let udp = || frames::udp(40_000, 443);
    let rows = [
        ("TCP4", "tcp", frames::ipv4(tcp()).frame().bytes()),
        ("UDP4", "udp", frames::ipv4(udp()).frame().bytes()),
        ("TCP6", "tcp", frames::ipv6(tcp()).frame().bytes()),
    ];
    let rows = rows.into_iter().map(|(name, protocol, frame)| {
        let one_protocol = Filter::load(protocol)?;
        let all = Filter::load("all")?;
        let programs = [
            bench.baseline("empty", 36)?,
            one_protocol.program()?,
            all.program()?,
            bench.dispatcher()?,
        ];
        for program in &programs[1..] {
            ensure!(program.drops(&frame)?, "{name} was not dropped");
        }
        let [empty, one, all, portdemux] = interleave(&programs, &frame, rounds, repeat)?;
        Ok(Row {
            frame: name,
            peer_one_protocol: Spread::of_differences(&one, &empty),
            peer_all: Spread::of_differences(&all, &empty),
            portdemux: Spread::of_differences(&portdemux, &empty),
        })
    });
    rows.collect::<Result<_>>().map(Some)
}

fn is_installed() -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .any(|directory| directory.join(PROGRAM).is_file())
    })
}

/// `xdp-filter` on an interface of its own, dropping 443/tcp and 443/udp.
struct Filter {
    namespace: Netns,
    program: u32,
}

impl Filter {
    fn load(features: &str) -> Result<Self> {
        let namespace = Netns::new("filter")?;
        let end = |name, number| End {
            namespace: &namespace,
            name,
            mac: [2, 0, 0, 0, 0, number],
            addresses: Vec::new(),
        };
        veth::connect(&end("veth0", 1), &end("veth1", 2), 1_500, Offloads::On)?;
        // Its pins are found by everyone in the bpffs of the machine, where it keeps them; in a mount
        // namespace of its own they are gone with the last command. Its dispatcher needs programs of a
        // type that some hosts refuse; it costs time, so that it is left out where it would work too.
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf && export LIBXDP_SKIP_DISPATCHER=1 && \
             xdp-filter load --mode skb --features {features} veth0 && \
             xdp-filter port 443 --mode dst {}",
            match features {
                "all" => "--proto tcp,udp",
                "tcp" => "--proto tcp",
                _ => "--proto udp",
            }
        );
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-ec", &script]);
        portdemux_tests::run::run(command)?.success()?;
        let link = namespace.ip(&["-j", "-d", "link", "show", "veth0"])?.stdout;
        let link: serde_json::Value = serde_json::from_str(&link)?;
        let program = link[0]["xdp"]["prog"]["id"]
            .as_u64()
            .context("xdp-filter is not attached")?;
        Ok(Self {
            namespace,
            program: u32::try_from(program)?,
        })
    }

    fn program(&self) -> Result<Program> {
        let info = loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == self.program)
            .with_context(|| format!("no program in {}", self.namespace.name()))?;
        let program = Xdp::from_program_info(info, PROGRAM.into(), XdpAttachType::Interface)?;
        Ok(Program::Loaded(Box::new(program)))
    }
}

pub(crate) fn table(rows: Option<&[Row]>) -> String {
    let Some(rows) = rows else {
        return format!("{PROGRAM} is not installed: not compared\n");
    };
    let mut text = format!(
        "{:<16}  {:<5}  {:>26}  {:>26}  {:>22}\n",
        "DROPPED BY PORT",
        "FRAME",
        "XDP-FILTER (ONE) - EMPTY, ns",
        "XDP-FILTER (ALL) - EMPTY, ns",
        "PORTDEMUX - EMPTY, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<16}  {:<5}  {:>28}  {:>28}  {:>22}",
            "443", row.frame, row.peer_one_protocol, row.peer_all, row.portdemux
        );
    }
    text
}
