//! `apply` is killed while it begins to track flows.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    frames::{CLIENT_V4, SERVER_V4},
    lab::{INTERFACE, Lab},
    require,
    steps::{self, Kill},
    wait::PATIENCE,
};

const PASS: &str = "# everything passes\n";
const DENY: &str = "[default]\ninbound = \"drop\"\n";

/// Every so many steps one is tried: programs are loaded for each.
const STRIDE: usize = 5;
/// More calls than the command makes.
const MANY: usize = 5_000;

#[test]
fn an_apply_killed_while_it_begins_to_track_flows_never_cuts_off_replies() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let deny = portdemux.state().join("deny.toml");
    fs::write(&deny, DENY)?;
    let (mut old_left, mut new_left) = (0, 0);
    for step in (1..=MANY).step_by(STRIDE) {
        portdemux.apply(PASS)?;
        let apply = portdemux.command(&["apply".as_ref(), deny.as_os_str()]);
        let course = steps::run(&apply, cli::binary()?, Kill::Before(step))?;
        let context = || format!("killed before step {step}: {course:?}");
        let in_force = portdemux.ok(&["export"]).with_context(context)?.stdout;
        ensure!(
            in_force == PASS || in_force == DENY,
            "{in_force}, {}",
            context()
        );
        hears_replies(&lab).with_context(context)?;
        if course.code.is_some() {
            ensure!(course.code == Some(0) && in_force == DENY, "{}", context());
            ensure!(old_left > 5 && new_left > 0, "{old_left} {new_left}");
            portdemux.ok(&["detach", "--all"])?;
            return Ok(());
        }
        if in_force == PASS {
            old_left += 1;
        } else {
            new_left += 1;
        }
        // Whatever was left half made is no obstacle.
        portdemux.apply(DENY).with_context(context)?;
        hears_replies(&lab).with_context(context)?;
    }
    anyhow::bail!("apply did not end within {MANY} steps");
}

/// An instance on one of two interfaces.
fn attached_beside_another(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    lab.server.ip(&[
        "link", "add", OTHER, "type", "veth", "peer", "name", "peer0",
    ])?;
    portdemux.ok(&["attach", INTERFACE])?;
    Ok(portdemux)
}

#[test]
fn an_apply_killed_while_it_replaces_the_tables_of_flows_is_gone_on_with_by_every_command()
-> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = attached_beside_another(&lab)?;
    let [small, large] = [("small", 1024), ("large", 8192)].map(|(name, size)| {
        let text = format!("{DENY}[flows]\nsize = {size}\n");
        (portdemux.state().join(format!("{name}.toml")), text)
    });
    for (file, text) in [&small, &large] {
        fs::write(file, text)?;
    }
    let restore = || portdemux.ok(&["apply".as_ref(), small.0.as_os_str()]);
    restore()?;
    let (mut begun, mut missing) = (0, 0);
    // Each step is tried from where the new tables begin to be made to where they are in their place.
    let (mut last_clean, mut step, mut stride) = (0, 0, STRIDE);
    // Programs are loaded by threads, whose steps come in no fixed order: the one between the two moves can have another
    // number in the next run, and be missed.
    let mut walks = 3;
    while step < MANY {
        step += stride;
        let apply = portdemux.command(&["apply".as_ref(), large.0.as_os_str()]);
        let course = steps::run(&apply, cli::binary()?, Kill::Before(step))?;
        let context = || format!("killed before step {step}: {course:?}");
        if course.code.is_some() {
            ensure!(course.code == Some(0), "{}", context());
            walks -= 1;
            if missing == 0 && walks > 0 {
                restore().with_context(context)?;
                (step, stride) = (last_clean, 1);
                continue;
            }
            ensure!(begun > 5 && missing > 0, "{begun} {missing}");
            return Ok(());
        }
        let left = tables(&portdemux)?;
        if left == ["flows"] {
            last_clean = step;
            continue;
        }
        if begun == 0 && stride > 1 {
            restore().with_context(context)?;
            (step, stride) = (last_clean, 1);
            continue;
        }
        begun += 1;
        if left.contains(&"flows".into()) {
            stride = if missing > 0 { STRIDE } else { 1 };
        } else {
            missing += 1;
        }
        is_whole(&portdemux).with_context(context)?;
        let (_, writer) = WRITERS[begun % WRITERS.len()];
        goes_on(&lab, &portdemux, writer).with_context(context)?;
        restore().with_context(context)?;
    }
    anyhow::bail!("apply did not end within {MANY} steps");
}

/// A kill can come where no system call is: between the move of the old tables and the note of how large the new ones
/// are.
#[test]
fn tables_of_flows_that_were_moved_aside_are_found_by_every_command() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = attached_beside_another(&lab)?;
    portdemux.apply(DENY)?;
    hears_replies(&lab)?;
    for (verb, writer) in WRITERS {
        let known = portdemux.json(&["flows"])?["matching"].clone();
        let pins = portdemux.pins();
        fs::rename(pins.join("flows"), pins.join("flows~old"))?;
        is_whole(&portdemux).context(verb)?;
        ensure!(
            portdemux.json(&["flows"])?["matching"] == known,
            "before {verb}"
        );
        goes_on(&lab, &portdemux, writer).context(verb)?;
    }
    Ok(())
}

/// Another interface of the server.
const OTHER: &str = "other0";

/// Commands that write, each in its own way.
const WRITERS: [(&str, &[&str]); 4] = [
    ("attach", &["attach", OTHER]),
    ("upgrade", &["upgrade"]),
    ("add", &["add", "7/sctp", "--name", "further"]),
    ("detach", &["detach", OTHER]),
];

/// A command that writes works, and leaves nothing half done.
fn goes_on(lab: &Lab, portdemux: &Portdemux, writer: &[&str]) -> Result<()> {
    if writer[0] == "detach" {
        portdemux.ok(&["attach", OTHER])?;
    }
    let said = portdemux.ok(writer)?.stderr;
    // The interface is down, and that is said.
    ensure!(
        !said.contains("flows") && !said.contains("interrupted"),
        "{said}"
    );
    let left = tables(portdemux)?;
    ensure!(left == ["flows"], "{left:?} after {writer:?}");
    is_whole(portdemux)?;
    hears_replies(lab)
}

/// Every command that reads finds the tables.
fn is_whole(portdemux: &Portdemux) -> Result<()> {
    for verb in [&["status"][..], &["flows"], &["stats"], &["rules"]] {
        let said = portdemux.ok(verb)?.stderr;
        ensure!(said.is_empty(), "{verb:?}: {said}");
    }
    let flows = portdemux.json(&["status"])?["flows"].clone();
    ensure!(!flows.is_null(), "status has no flows");
    Ok(())
}

/// The directories of tables of flows that are there.
fn tables(portdemux: &Portdemux) -> Result<Vec<String>> {
    let names = fs::read_dir(portdemux.pins())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| name.starts_with("flows"))
        .collect();
    names.sort();
    Ok(names)
}

/// The server asks the client something and hears the answer.
fn hears_replies(lab: &Lab) -> Result<()> {
    let peer = lab
        .client
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(CLIENT_V4.into(), 0))?))?;
    let host = lab
        .server
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(SERVER_V4.into(), 0))?))?;
    for socket in [&peer, &host] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    host.send_to(b"question", peer.local_addr()?)?;
    let mut heard = [0; 16];
    let (length, from) = peer.recv_from(&mut heard).context("hear the question")?;
    ensure!(&heard[..length] == b"question");
    peer.send_to(b"answer", from)?;
    let (length, _) = host.recv_from(&mut heard).context("hear the answer")?;
    ensure!(&heard[..length] == b"answer");
    Ok(())
}
