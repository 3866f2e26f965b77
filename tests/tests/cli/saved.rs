//! Rules in force that are written to the file that holds at boot.

use std::fs;

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
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
