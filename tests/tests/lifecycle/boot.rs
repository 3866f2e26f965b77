//! What holds at boot where the file for it has a mistake: what was last in force from it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
    wait::PATIENCE,
};

use crate::{bed, waiting::Manager};

const RULES: &str =
    "[attach]\ninterface = \"wire0\"\n\n[[rule]]\nname = \"no\"\nport = \"7/udp\"\nto = \"drop\"\n";
const MORE: &str = "\n[[rule]]\nname = \"more\"\nport = \"9/udp\"\nto = \"drop\"\n";

/// The file for boot, and the one beside it.
fn files(portdemux: &Portdemux) -> Result<(PathBuf, PathBuf)> {
    fs::create_dir_all(portdemux.config())?;
    let name = "default.toml";
    Ok((portdemux.config().join(name), portdemux.kept().join(name)))
}

fn says(path: &Path, text: &str) -> Result<()> {
    let said = fs::read_to_string(path)?;
    ensure!(said == text, "{} says {said}", path.display());
    Ok(())
}

#[test]
fn a_mistake_in_the_file_for_boot_leaves_no_interface_open() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let (file, kept) = files(&portdemux)?;
    let path = file.display().to_string();
    let at_boot = ["attach", "--rules", &path, "--boot"];
    let (good, bad) = (format!("{RULES}{MORE}"), format!("{RULES}nonsense = 1\n"));

    // Nothing was ever in force from it.
    fs::write(&file, &bad)?;
    let refused = portdemux.fails(1, &at_boot)?.stderr;
    ensure!(refused.contains("nonsense"), "{refused}");
    let end = format!(
        "error: no rules were kept from before: nothing was attached\n help: mend {path}, then attach again\n"
    );
    ensure!(
        refused.ends_with(&end) && refused.matches("error: ").count() == 2,
        "{refused}"
    );
    ensure!(bed::program_on(&lab, INTERFACE)?.is_none());

    fs::write(&file, RULES)?;
    portdemux.ok(&at_boot)?;
    says(&kept, RULES)?;
    assert_eq!(fs::metadata(&kept)?.permissions().mode() & 0o777, 0o600);
    fs::write(&file, &good)?;
    portdemux.ok(&["apply", &path])?;
    says(&kept, &good)?;

    // As after a boot; a full disk leaves a file with nothing in it.
    for text in ["", "\n"] {
        portdemux.ok(&["detach", "--all"])?;
        fs::write(&file, text)?;
        portdemux.ok(&at_boot)?;
        ensure!(bed::program_on(&lab, INTERFACE)?.is_some());
        ensure!(portdemux.json(&["status"])?["fell_back"] == true);
        says(&kept, &good)?;
    }
    portdemux.ok(&["detach", "--all"])?;
    fs::write(&file, &bad)?;
    portdemux.fails(1, &at_boot[..3])?;
    ensure!(bed::program_on(&lab, INTERFACE)?.is_none());
    let manager = Manager::new(portdemux.state())?;
    let waiting = manager.start(portdemux.command(&[&at_boot[..], &["--wait"]].concat()))?;
    assert_eq!(
        manager.hears()?,
        format!(
            "READY=1\nSTATUS={path} has a mistake: the rules before hold; attached to every interface"
        )
    );
    ensure!(bed::program_on(&lab, INTERFACE)?.is_some());
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["fell_back"] == true && status["rules"] == 2,
        "{status}"
    );
    let warned = portdemux.ok(&["status"])?.stderr;
    ensure!(
        warned.contains(
            "default.toml was not put in force: the rules hold that were last in force from it"
        ),
        "{warned}"
    );
    says(&kept, &good)?;

    // Mended, it says what is in force.
    fs::write(&file, &good)?;
    assert_eq!(
        manager.hears()?,
        "READY=1\nSTATUS=attached to every interface"
    );
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["fell_back"] == false && status["saved"] == true,
        "{status}"
    );
    portdemux.ok(&["apply", &path])?;
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["fell_back"] == false && status["in_sync"] == true,
        "{status}"
    );
    waiting.signal(Signal::SIGTERM)?;
    waiting.wait(PATIENCE)?;
    Ok(())
}

#[test]
fn a_file_for_boot_without_an_interface_is_told_of_once() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let (file, kept) = files(&portdemux)?;
    let path = file.display().to_string();
    let at_boot = ["attach", "--rules", &path, "--boot"];
    let told = |more: &str| -> Result<()> {
        let refused = portdemux.fails(1, &at_boot)?.stderr;
        assert_eq!(
            refused,
            format!(
                "error: no interface is named: the rules have no [attach]\n help: write interface = \"eth0\" under \
                 [attach] in the rules file, or: portdemux attach eth0; nothing was changed\n{more}"
            )
        );
        ensure!(bed::program_on(&lab, INTERFACE)?.is_none());
        Ok(())
    };
    fs::write(&file, MORE)?;
    told(&format!(
        "error: no rules were kept from before: nothing was attached\n help: mend {path}, then attach again\n"
    ))?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.ok(&["apply", &path])?;
    says(&kept, MORE)?;
    portdemux.ok(&["detach", "--all"])?;
    told("")?;
    fs::write(&file, format!("{MORE}# changed\n"))?;
    told("")?;

    // Rules that were kept and say where hold; what is wrong with the file is said all the same.
    fs::write(&kept, RULES)?;
    let said = portdemux.ok(&at_boot)?.stderr;
    ensure!(
        said.starts_with("error: no interface is named")
            && said.contains("was not put in force: the rules hold that were in force last\n"),
        "{said}"
    );
    ensure!(bed::program_on(&lab, INTERFACE)?.is_some());
    Ok(())
}

#[test]
fn rules_in_force_stay_where_the_file_for_boot_has_a_mistake() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let (file, kept) = files(&portdemux)?;
    let path = file.display().to_string();
    fs::write(&file, RULES)?;
    portdemux.ok(&["attach", "--rules", &path])?;
    portdemux.ok(&["add", "11/udp", "--name", "by-hand", "--to", "drop"])?;
    fs::write(&file, format!("{RULES}nonsense = 1\n"))?;
    let said = portdemux
        .ok(&["attach", "--rules", &path, "--boot"])?
        .stderr;
    ensure!(
        said.contains("nonsense")
            && said.contains("was not put in force: the rules in force stay\n"),
        "{said}"
    );
    let rules = portdemux.ok(&["rules"])?.stdout;
    ensure!(rules.contains("by-hand"), "{rules}");
    // Started anew with a file that was in force already, the unit changes nothing.
    fs::write(&file, RULES)?;
    portdemux.ok(&["attach", "--rules", &path, "--boot"])?;
    let rules = portdemux.ok(&["rules"])?.stdout;
    ensure!(rules.contains("by-hand"), "{rules}");
    fs::write(&file, format!("{RULES}nonsense = 1\n"))?;
    // Whoever asks hears of it before the next boot.
    let warned = portdemux.ok(&["status"])?.stderr;
    ensure!(
        warned.contains("default.toml has a mistake, and is not put in force at boot\n"),
        "{warned}"
    );
    says(&kept, RULES)?;

    portdemux.ok(&["save"])?;
    says(&kept, &fs::read_to_string(&file)?)?;
    ensure!(fs::read_to_string(&kept)?.contains("by-hand"));

    // One that was changed meanwhile is applied.
    fs::write(&file, format!("{RULES}{MORE}"))?;
    portdemux.ok(&["attach", "--rules", &path, "--boot"])?;
    let rules = portdemux.ok(&["rules"])?.stdout;
    ensure!(
        rules.contains("more") && !rules.contains("by-hand"),
        "{rules}"
    );
    Ok(())
}

#[test]
fn only_what_stays_and_came_from_the_file_for_boot_is_kept_for_the_next() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let (file, kept) = files(&portdemux)?;
    let path = file.display().to_string();
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(MORE)?;
    ensure!(!kept.exists(), "that file holds at no boot");
    fs::write(&file, RULES)?;
    portdemux.ok(&["apply", &path, "--dry-run"])?;
    portdemux.ok(&["apply", &path, "--confirm", "60s"])?;
    ensure!(!kept.exists(), "nobody has said yet that it stays");
    portdemux.ok(&["confirm"])?;
    says(&kept, RULES)?;

    // What cannot be kept is in force all the same.
    fs::remove_file(&kept)?;
    fs::remove_dir(portdemux.kept())?;
    fs::write(portdemux.kept(), "in the way")?;
    fs::write(&file, format!("{RULES}{MORE}"))?;
    let said = portdemux.ok(&["apply", &path])?.stderr;
    ensure!(said.contains("these rules are not kept in "), "{said}");
    Ok(())
}
