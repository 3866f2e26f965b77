//! A change that would cut the session it is made from: what is said of it, and that it is not made.

use std::{
    env,
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::symlink},
    process::Command,
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    faults,
    lab::{INTERFACE, Lab},
    require,
    run::{self, Output, Running},
    server::Sshd,
    wait::PATIENCE,
};

use crate::bed::{Told, without_time};

/// The client of the lab as sshd says it.
const CLIENT: &str = "192.0.2.1 52341 192.0.2.2 22";

const MESSAGE: &str = "error: this would cut the SSH session you are typing in (192.0.2.1:52341 → \
                       22/tcp: source_not_allowed)\n";

/// Two rules that let SSH in; without the second the first drops it.
const RULES: &str = "\
[[rule]]
name = \"low\"
port = \"1-1023/tcp\"
to   = \"drop\"

[[rule]]
name = \"ssh\"
port = \"22/tcp\"
";

/// A file that drops SSH.
const CLOSED: &str = "[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\nto = \"drop\"\n";

fn loaded(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Ok(portdemux)
}

/// A command as it runs in a session.
fn typed(portdemux: &Portdemux, connection: &str, words: &[&str]) -> Command {
    let mut command = portdemux.command(words);
    command.env("SSH_CONNECTION", connection);
    command
}

/// Runs a command in a session; it has to fail and to change nothing. Returns what it said.
fn refused(portdemux: &Portdemux, connection: &str, words: &[&str]) -> Result<String> {
    let before = Told::by(portdemux)?;
    let Output {
        status,
        stdout,
        stderr,
        ..
    } = run::run(typed(portdemux, connection, words))?;
    ensure!(
        status.code() == Some(1) && stdout.is_empty(),
        "{words:?}, {connection}: {status}\n{stdout}{stderr}"
    );
    let after = Told::by(portdemux)?;
    ensure!(after == before, "{words:?}: {before:?} became {after:?}");
    Ok(stderr)
}

/// Runs a command in a session; it has to succeed without a word on standard error.
fn silent(portdemux: &Portdemux, connection: &str, words: &[&str]) -> Result<()> {
    let output = run::run(typed(portdemux, connection, words))?.success()?;
    ensure!(
        output.stderr.is_empty(),
        "{words:?}, {connection}: {}",
        output.stderr
    );
    Ok(())
}

#[test]
fn a_change_that_would_cut_the_session_is_refused_and_says_what_to_do() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let add = ["add", "22/tcp", "--from", "203.0.113.0/24"];
    assert_eq!(
        refused(&portdemux, CLIENT, &add)?,
        format!(
            "{MESSAGE} help: add --from 192.0.2.1, or try it with --confirm 60s, or --force; \
             nothing was changed\n"
        )
    );
    portdemux.apply(RULES)?;
    let dropped = "error: this would cut the SSH session you are typing in (192.0.2.1:52341 → \
                   22/tcp: rule_drop)\n help: try it with --confirm 60s, or --force; nothing was changed\n";
    assert_eq!(refused(&portdemux, CLIENT, &["remove", "ssh"])?, dropped);
    let file = portdemux.rules_file(CLOSED)?.display().to_string();
    assert_eq!(refused(&portdemux, CLIENT, &["apply", &file])?, dropped);
    let rejects = CLOSED.replace("drop", "reject");
    let file = portdemux.rules_file(&rejects)?.display().to_string();
    assert_eq!(
        refused(&portdemux, CLIENT, &["apply", &file])?,
        dropped.replace("rule_drop", "rule_reject")
    );
    // What lets the session in is nobody's business.
    silent(&portdemux, CLIENT, &["add", "22/udp", "--to", "drop"])?;
    silent(&portdemux, CLIENT, &["remove", "low"])
}

#[test]
fn a_set_that_would_cut_the_session_is_not_changed_unless_it_is_forced() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    portdemux.apply(
        "[sets]\nbanned = []\noffice = \"192.0.2.0/24\"\n[[rule]]\nport = \"22/tcp\"\nfrom = \
         \"@office\"\ndeny = \"@banned\"\n",
    )?;
    let ban = ["set", "add", "banned", "192.0.2.0/30", "--expires", "1h"];
    let denied = "error: this would cut the SSH session you are typing in (192.0.2.1:52341 → 22/tcp: \
                  source_denied)\n help: --force; nothing was changed\n";
    assert_eq!(refused(&portdemux, CLIENT, &ban)?, denied);
    let leave = ["set", "remove", "office", "192.0.2.0/24"];
    let told = refused(&portdemux, CLIENT, &leave)?;
    assert!(told.starts_with(MESSAGE), "{told}");
    silent(&portdemux, CLIENT, &["set", "add", "banned", "192.0.2.8"])?;
    let forced = run::run(typed(
        &portdemux,
        CLIENT,
        &[&ban[..], &["--force"]].concat(),
    ))?;
    let warning = "warning: this cuts the SSH session you are typing in (192.0.2.1:52341 → 22/tcp: \
                   source_denied)\n";
    assert_eq!(forced.success()?.stderr, warning);
    Ok(())
}

#[test]
fn force_goes_on_and_says_what_it_does() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let words = ["add", "22/tcp", "--to", "drop", "--force"];
    let output = run::run(typed(&portdemux, CLIENT, &words))?.success()?;
    assert_eq!(
        output.stderr,
        "warning: this cuts the SSH session you are typing in (192.0.2.1:52341 → 22/tcp: \
         rule_drop)\n"
    );
    assert_eq!(portdemux.stats()?.generation()?, 1);
    // It is cut; a later change is not to blame for it.
    silent(&portdemux, CLIENT, &["add", "23/tcp", "--to", "drop"])
}

#[test]
fn a_change_on_trial_may_cut_the_session_and_says_when_it_is_undone() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let file = portdemux.rules_file(CLOSED)?.display().to_string();
    let cuts = "warning: this cuts the SSH session you are typing in (192.0.2.1:52341 → 22/tcp: \
                rule_drop)\n   help: it is undone after 5m, unless portdemux confirm comes\n";
    let plan = "+ ssh  22/tcp  any address → drop\n= 0 unchanged\n";
    let apply = ["apply", &file, "--confirm", "5m"];
    let dry = [&apply[..], &["--dry-run"]].concat();
    let output = run::run(typed(&portdemux, CLIENT, &dry))?.success()?;
    assert_eq!(output.stderr, cuts);
    assert_eq!(
        output.stdout,
        format!("{plan}dry run: nothing was changed\n")
    );
    ensure!(portdemux.json(&["status"])?["pending"].is_null());

    let output = run::run(typed(&portdemux, CLIENT, &apply))?.success()?;
    assert_eq!(output.stderr, cuts);
    let said = output
        .stdout
        .strip_suffix("undone after 5m, unless: portdemux confirm\n");
    assert_eq!(
        without_time(said.unwrap_or(&output.stdout))?,
        format!("{plan}generation 1, TIME, counters kept\n")
    );
    let status = portdemux.ok(&["status"])?.stdout;
    let line = status.lines().nth(1).unwrap_or_default();
    ensure!(
        line.starts_with("generation 1 is undone in ")
            && line.ends_with(", unless: portdemux confirm"),
        "{status}"
    );
    let undone = portdemux.ok(&["confirm", "--undo"])?;
    assert_eq!(
        without_time(&undone.stdout)?,
        "- ssh  22/tcp\n= 0 unchanged\ngeneration 2, TIME, counters kept\n"
    );
    // What changes nothing is on no trial.
    portdemux.ok(&["apply", &file])?;
    let same = portdemux.ok(&apply)?;
    ensure!(!same.stdout.contains("undone"), "{}", same.stdout);
    portdemux.fails(1, &["confirm"])?;
    Ok(())
}

#[test]
fn a_time_that_makes_no_sense_is_wrong_usage() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    for (time, said) in [
        (
            "60",
            "`60` has no unit\n help: write 60s for seconds, or 60m for minutes",
        ),
        (
            "0s",
            "`0s` leaves no time to confirm it\n help: write a longer time, as in 60s",
        ),
        (
            "soon",
            "`soon` is no duration\n help: write a number and its unit, as in 30s, 5m or 1h30m",
        ),
        ("2d", "`2d` is too long\n help: 24h is the longest"),
        ("1d1s", "`1d1s` is too long\n help: 24h is the longest"),
    ] {
        let words = ["add", "9/sctp", "--confirm", time];
        let output = portdemux.fails(2, &words)?;
        ensure!(output.stderr.contains(said), "{}", output.stderr);
    }
    ensure!(portdemux.stats()?.generation()? == 0);
    Ok(())
}

#[test]
fn a_dry_run_says_what_would_change_and_fails_as_the_change_would() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let file = portdemux.rules_file(CLOSED)?.display().to_string();
    let words = ["apply", &file, "--dry-run"];
    let output = run::run(typed(&portdemux, CLIENT, &words))?;
    assert_eq!(output.code(), Some(1));
    assert_eq!(
        output.stdout,
        "+ ssh  22/tcp  any address → drop\n= 0 unchanged\ndry run: nothing was changed\n"
    );
    ensure!(
        output
            .stderr
            .starts_with("error: this would cut the SSH session"),
        "{}",
        output.stderr
    );
    assert_eq!(portdemux.stats()?.generation()?, 0);
    Ok(())
}

#[test]
fn attaching_under_rules_that_cut_the_session_is_refused() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let file = portdemux.rules_file(CLOSED)?.display().to_string();
    let attach = ["attach", INTERFACE, "--rules", &file];
    let output = run::run(typed(&portdemux, CLIENT, &attach))?;
    assert_eq!(output.code(), Some(1));
    ensure!(output.stderr.contains("rule_drop"), "{}", output.stderr);
    portdemux.fails(3, &["status"])?;

    // The rules hold elsewhere, and would from now on hold here too.
    lab.server
        .ip(&["link", "add", "other0", "type", "veth", "peer", "other1"])?;
    portdemux.ok(&["attach", "other1"])?;
    silent(&portdemux, CLIENT, &["apply", &file])?;
    assert_eq!(
        refused(&portdemux, CLIENT, &["attach", INTERFACE])?,
        "error: this would cut the SSH session you are typing in (192.0.2.1:52341 → 22/tcp: \
         rule_drop)\n help: --force; nothing was changed\n"
    );
    let words = ["attach", INTERFACE, "--force"];
    let output = run::run(typed(&portdemux, CLIENT, &words))?.success()?;
    ensure!(
        output.stderr.starts_with("warning: this cuts the SSH"),
        "{}",
        output.stderr
    );
    Ok(())
}

#[test]
fn only_a_session_that_comes_by_an_interface_of_the_instance_counts() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let ip = |words: &[&str]| lab.server.ip(words);
    ip(&["link", "add", "other0", "type", "veth", "peer", "other1"])?;
    ip(&["addr", "add", "198.51.100.1/24", "dev", "other0"])?;
    ip(&["link", "set", "other0", "up"])?;
    ip(&["link", "set", "other1", "up"])?;
    ip(&["link", "add", "bridge0", "type", "bridge"])?;
    ip(&["addr", "add", "10.7.0.1/24", "dev", "bridge0"])?;
    ip(&["link", "set", "bridge0", "up"])?;
    ip(&["link", "set", INTERFACE, "master", "bridge0"])?;
    ip(&["addr", "add", "203.0.113.10/32", "dev", "lo"])?;
    ip(&["addr", "add", "fe80::2/64", "dev", INTERFACE])?;
    let linked = format!("fe80::1%{INTERFACE} 52341 fe80::2%{INTERFACE} 22");

    let close = ["add", "22/tcp", "--to", "drop", "--name", "ssh"];
    for (connection, shown) in [
        (CLIENT, "192.0.2.1:52341"),
        (
            "::ffff:192.0.2.1 52341 ::ffff:192.0.2.2 22",
            "192.0.2.1:52341",
        ),
        ("2001:db8::1 52341 2001:db8::2 22", "[2001:db8::1]:52341"),
        (&linked, "[fe80::1]:52341"),
        // For a bridge, one port of which is the wire.
        ("10.7.0.9 52341 10.7.0.1 22", "10.7.0.9:52341"),
        // An address that no interface receives for: by whichever it comes.
        ("192.0.2.1 52341 203.0.113.10 22", "192.0.2.1:52341"),
    ] {
        let said = refused(&portdemux, connection, &close)?;
        let expected = format!("typing in ({shown} → 22/tcp: rule_drop)");
        ensure!(said.contains(&expected), "{connection}: {said}");
    }
    for connection in [
        // By another interface, from this host itself, at another host, and no session at all.
        "198.51.100.7 52341 198.51.100.1 22",
        "127.0.0.1 52341 127.0.0.1 22",
        "192.0.2.2 52341 192.0.2.2 22",
        "198.51.100.7 52341 203.0.113.99 22",
        // At a port that stays open.
        "192.0.2.1 52341 192.0.2.2 2222",
        "UNKNOWN 65535 UNKNOWN 65535",
        "",
    ] {
        silent(&portdemux, connection, &close)?;
        portdemux.ok(&["remove", "ssh"])?;
    }
    Ok(())
}

#[test]
fn what_sudo_takes_out_of_the_environment_is_found_further_up() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let binary = cli::binary()?.display().to_string();
    // The command's parent has the variable, the command has not.
    let script = "env -u SSH_CONNECTION \"$0\" \"$@\"; exit $?";
    let words = ["sh", "-c", script, &binary];
    let close = ["add", "22/tcp", "--to", "drop"];
    let mut command = portdemux.command_through(&words, &close);
    command.env("SSH_CONNECTION", CLIENT);
    let output = run::run(command)?;
    assert_eq!(output.code(), Some(1), "{}", output.stderr);
    ensure!(
        output
            .stderr
            .contains("(192.0.2.1:52341 → 22/tcp: rule_drop)")
    );
    Ok(())
}

#[test]
fn a_session_of_sshd_is_found_with_and_without_what_it_says() -> Result<()> {
    let needs = [
        require::WIRE,
        &[require::Need::Tool("sshd"), require::Need::Tool("ssh")],
    ]
    .concat();
    if !require::have(&needs) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let sshd = Sshd::new(&lab.server, 22)?;
    let binary = cli::binary()?.display().to_string();
    let paths = format!(
        "PORTDEMUX_BPFFS={} PORTDEMUX_STATE_DIR={} NO_COLOR=1",
        portdemux.bpffs().display(),
        portdemux.state().display()
    );
    let login = |remote: &str, address: &str| -> Result<Output> {
        Running::spawn(sshd.login(&lab.client, address, remote))?.wait(PATIENCE)
    };
    for (address, peer) in [
        ("192.0.2.2", "192.0.2.1:"),
        ("2001:db8::2", "[2001:db8::1]:"),
    ] {
        for way in ["", "env -u SSH_CONNECTION"] {
            let remote = format!("{paths} {way} {binary} add 22/tcp --from 203.0.113.0/24");
            let output = login(&remote, address)?;
            let expected =
                format!("error: this would cut the SSH session you are typing in ({peer}");
            ensure!(
                output.code() == Some(1) && output.stderr.starts_with(&expected),
                "{remote}: {}{}",
                output.stdout,
                output.stderr
            );
        }
    }
    // What lets the client in goes through, and the session that did it goes on.
    let remote = format!("{paths} {binary} add 22/tcp --from 192.0.2.0/24 && echo alive");
    let output = login(&remote, "192.0.2.2")?.success()?;
    ensure!(output.stdout.ends_with("alive\n"), "{}", output.stdout);
    ensure!(without_time(output.stdout.trim_end().trim_end_matches("\nalive")).is_ok());
    Ok(())
}

/// Calls by which `/proc` is read, and how they fail.
const UNREAD: [&str; 5] = [
    "openat {} EMFILE",
    "openat {} EACCES",
    "read {} EIO",
    "readlink {} EIO",
    "getdents64 {} EIO",
];

/// Has each of these calls of a command fail that would cut the session; it has to refuse each time.
fn refuses_whatever_fails(command: &Command) -> Result<()> {
    for call in UNREAD {
        for nth in 1.. {
            let fault = call.replace("{}", &format!("{nth}"));
            let ended = faults::run(command, cli::binary()?, Some(fault.parse()?))?;
            ensure!(
                ended.code == Some(1),
                "{fault}: {:?} {}",
                ended.code,
                ended.stderr
            );
            if !ended.has_failed {
                ensure!(ended.stderr.starts_with("error: this would cut"));
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn no_failing_call_hides_the_session() -> Result<()> {
    if !require::have(require::WIRE) || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    portdemux.apply(RULES)?;
    refuses_whatever_fails(&typed(&portdemux, CLIENT, &["remove", "ssh"]))?;
    assert_eq!(portdemux.json(&["status"])?["generation"], 1);
    Ok(())
}

/// Says that this process is the server of [`no_failing_call_hides_the_connection_of_the_server`].
const IS_SERVER: &str = "PORTDEMUX_TEST_IS_SSHD";

#[test]
fn no_failing_call_hides_the_connection_of_the_server() -> Result<()> {
    if env::var_os(IS_SERVER).is_some() {
        let mut command = Command::new(cli::binary()?);
        command.args(["remove", "ssh"]);
        return refuses_whatever_fails(&command);
    }
    if !require::have(require::WIRE) || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    portdemux.apply(RULES)?;
    let listener = lab
        .server
        .enter(|| Ok(TcpListener::bind("192.0.2.2:22")?))?;
    let client = lab
        .client
        .enter(|| Ok(TcpStream::connect("192.0.2.2:22")?))?;
    let (connection, _) = listener.accept()?;
    // This test once more, under the name of a server for logins, with the connection of a client.
    let directory = tempfile::tempdir()?;
    let sshd = directory.path().join("sshd");
    symlink(env::current_exe()?, &sshd)?;
    let mut command = lab.server.command(&sshd);
    command
        .args([
            "--exact",
            "lockout::no_failing_call_hides_the_connection_of_the_server",
        ])
        .env(IS_SERVER, "1")
        .env("PORTDEMUX_BPFFS", portdemux.bpffs())
        .env("PORTDEMUX_STATE_DIR", portdemux.state())
        .env_remove("SSH_CONNECTION")
        .stdin(OwnedFd::from(connection));
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("1 passed"), "{}: {said}", output.status);
    assert_eq!(portdemux.json(&["status"])?["generation"], 1);
    drop(client);
    Ok(())
}
