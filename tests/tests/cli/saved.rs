//! Rules in force that are written to the file that holds at boot.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require, run,
};
use serde_json::Value;

const RULES: &str = "# who comes in\n[sets]\nguests = [\"192.0.2.9\"]   # by name\n\n[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nfrom = \"@guests\"\n";

#[test]
fn what_is_in_force_is_saved_with_the_ends_of_members_and_holds_when_applied() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let boot = portdemux.config().join("default.toml");
    let saved = || -> Result<Value> { Ok(portdemux.json(&["status"])?["saved"].clone()) };
    portdemux.ok(&["attach", INTERFACE])?;
    let refused = portdemux.fails(1, &["save"])?.stderr;
    ensure!(
        refused.starts_with("error: no rules are in force\n"),
        "{refused}"
    );
    ensure!(!boot.exists());

    portdemux.apply(RULES)?;
    portdemux.ok(&[
        "set",
        "add",
        "guests",
        "198.51.100.7",
        "--expires",
        "2030-01-31T12:00:00Z",
    ])?;
    ensure!(saved()?.is_null(), "there is no such file");
    let said = portdemux.ok(&["save"])?.stdout;
    assert_eq!(said, format!("{}  generation 1, 1 rule\n", boot.display()));
    let text = fs::read_to_string(&boot)?;
    assert_eq!(text, portdemux.ok(&["export"])?.stdout);
    ensure!(
        text.starts_with("# who comes in\n") && text.contains("# by name"),
        "{text}"
    );
    ensure!(text.contains("2030-01-31T12:00:00Z"), "{text}");
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["saved"] == true && status["in_sync"] == true,
        "{status}"
    );
    assert_eq!(status["source"], boot.display().to_string());

    // What comes after it is not saved, and said so.
    portdemux.ok(&["add", "443/tcp"])?;
    assert_eq!(saved()?, false);
    let status = portdemux.ok(&["status"])?.stdout;
    ensure!(
        status.contains("default.toml (differs from what is in force)"),
        "{status}"
    );
    portdemux.apply("# another file\n")?;
    let status = portdemux.ok(&["status"])?.stdout;
    let line = format!(
        "at boot {} holds, which differs: portdemux save\n",
        boot.display()
    );
    ensure!(status.contains(&line), "{status}");
    let said = portdemux.ok(&["save"])?.stdout;
    let kept = format!("{}~", boot.display());
    ensure!(
        said.ends_with(&format!("; what it said before is in {kept}\n")),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&kept)?, text);
    assert_eq!(fs::read_to_string(&boot)?, "# another file\n");

    portdemux.ok(&["apply", &kept])?;
    let members = portdemux.json(&["set", "list", "guests"])?;
    ensure!(members.to_string().contains("198.51.100.7"), "{members}");
    Ok(())
}

#[test]
fn what_may_be_undone_is_not_saved_and_a_link_keeps_being_one() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let file = portdemux.rules_file(RULES)?.display().to_string();
    portdemux.ok(&["apply", &file, "--confirm", "1h"])?;
    let refused = portdemux.fails(1, &["save"])?.stderr;
    ensure!(refused.contains("waits to be confirmed"), "{refused}");
    portdemux.ok(&["confirm"])?;
    let (link, target) = (
        portdemux.state().join("link.toml"),
        portdemux.state().join("target.toml"),
    );
    fs::write(&target, "")?;
    std::os::unix::fs::symlink(&target, &link)?;
    portdemux.ok(&["save", &link.display().to_string()])?;
    ensure!(link.is_symlink());
    assert_eq!(fs::read_to_string(&target)?, RULES);
    Ok(())
}

/// Makes something that is no regular file.
fn special(program: &str, path: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(path).args(arguments);
    run::run(command)?.success()?;
    Ok(())
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_replaced() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    let path = |name: &str| portdemux.state().join(name);
    special("mknod", &path("null"), &["c", "1", "3"])?;
    special("mknod", &path("full"), &["c", "1", "7"])?;
    special("mkfifo", &path("fifo"), &[])?;
    fs::create_dir(path("directory"))?;
    std::os::unix::fs::symlink("null", path("link"))?;
    let device = "it is a device and no regular file";
    for (name, why) in [
        ("null", device),
        ("full", device),
        ("link", device),
        ("fifo", "it is a FIFO and no regular file"),
        ("directory", "Is a directory (os error 21)"),
    ] {
        let file = path(name).display().to_string();
        let before = fs::symlink_metadata(path(name))?;
        let said = portdemux.fails(1, &["save", &file])?.stderr;
        assert_eq!(
            said,
            format!(
                "error: write {file}: {why}\n help: portdemux export writes to standard output; nothing was written\n"
            )
        );
        let after = fs::symlink_metadata(path(name))?;
        assert_eq!(before.ino(), after.ino(), "{name}");
    }
    Ok(())
}

#[test]
fn a_fifo_in_the_place_of_a_file_keeps_no_command_waiting() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let applied = portdemux.rules_file(RULES)?;
    portdemux.ok(&["apply".as_ref(), applied.as_os_str()])?;
    portdemux.ok(&["set", "add", "guests", "198.51.100.7"])?;
    fs::remove_file(&applied)?;
    special("mkfifo", &applied, &[])?;
    let status = portdemux.ok(&["status"])?.stdout;
    ensure!(
        status.contains("rules-under-test.toml (cannot be read)"),
        "{status}"
    );
    portdemux.ok(&["explain", "tcp", "192.0.2.9:1024", "192.0.2.2:80"])?;

    // The file for boot, and what is kept of it.
    let boot = portdemux.config().join("default.toml");
    fs::create_dir_all(portdemux.config())?;
    special("mkfifo", &boot, &[])?;
    let warned = portdemux.ok(&["status"])?.stderr;
    let line = format!(
        "warning: {} is not put in force at boot: it is a FIFO and no regular file\n",
        boot.display()
    );
    ensure!(warned.contains(&line), "{warned}");
    portdemux.fails(1, &["save"])?;
    fs::remove_file(&boot)?;
    fs::create_dir_all(portdemux.kept())?;
    special("mkfifo", &portdemux.kept().join("default.toml"), &[])?;
    let warned = portdemux.ok(&["save"])?.stderr;
    ensure!(warned.contains("these rules are not kept in "), "{warned}");
    portdemux.ok(&["status"])?;

    // Records.
    portdemux.ok(&["add", "9/tcp", "--confirm", "1h"])?;
    for name in portdemux.records()? {
        let path = portdemux.state().join("default").join(&name);
        let aside = portdemux.state().join("aside");
        fs::rename(&path, &aside)?;
        special("mkfifo", &path, &[])?;
        for words in [
            &["status"][..],
            &["export"],
            &["add", "8/tcp"],
            &["set", "list"],
        ] {
            portdemux.run(words)?;
        }
        fs::remove_file(&path)?;
        fs::rename(&aside, &path)?;
    }
    Ok(())
}

#[test]
fn what_names_no_interface_is_warned_of_before_it_holds_on_none_at_boot() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let boot = portdemux.config().join("default.toml");
    let warning = |interfaces: &str| {
        let file = boot.display();
        format!(
            "warning: {file} has no [attach]: at boot its rules are put in force on no interface, and the host is \
             open\n   help: add these lines to it, then: portdemux apply {file}\n         [attach]\n         \
             interface = {interfaces}\n"
        )
    };
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    let elsewhere = portdemux.state().join("elsewhere.toml");
    let said = portdemux
        .ok(&["save".as_ref(), elsewhere.as_os_str()])?
        .stderr;
    ensure!(said.is_empty(), "{said}");
    let one = warning("\"wire0\"");
    assert_eq!(portdemux.ok(&["save"])?.stderr, one);
    assert_eq!(portdemux.ok(&["status"])?.stderr, one);
    portdemux.ok(&["attach", "lo"])?;
    assert_eq!(
        portdemux.ok(&["save"])?.stderr,
        warning("[\"wire0\", \"lo\"]")
    );
    portdemux.ok(&["detach", "lo"])?;

    // Also of a file that differs from what is in force.
    portdemux.ok(&["add", "443/tcp"])?;
    ensure!(portdemux.ok(&["status"])?.stderr.contains(&one));
    let text = format!("{RULES}[attach]\ninterface = \"wire0\"\n");
    fs::write(&boot, text)?;
    let file = boot.display().to_string();
    for words in [&["status"][..], &["apply", &file], &["save"], &["status"]] {
        let said = portdemux.ok(words)?.stderr;
        ensure!(said.is_empty(), "{words:?}: {said}");
    }
    Ok(())
}
