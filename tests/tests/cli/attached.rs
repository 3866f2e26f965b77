//! Where the rules say that they are attached.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
    run::Output,
};
use serde_json::json;

const RULES: &str = "# where\n[attach]\ninterface = [\"wire0\"]\nmode = \"generic\"\n\n[[rule]]\nport = \"9/tcp\"\n";

#[test]
fn attach_goes_where_the_rules_say_and_the_command_line_has_the_last_word() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let file = portdemux.rules_file(RULES)?.display().to_string();
    let attached = portdemux.ok(&["attach", "--rules", &file])?.stdout;
    ensure!(
        attached.starts_with("wire0  attached  xdp generic"),
        "{attached}"
    );
    ensure!(
        attached.contains("~ [attach]  interface none → wire0\n"),
        "{attached}"
    );
    let rules = portdemux.json(&["rules"])?;
    assert_eq!(
        rules["attach"],
        json!({"interface": ["wire0"], "mode": "generic"})
    );
    assert_eq!(portdemux.ok(&["export"])?.stdout, RULES);
    portdemux.ok(&["detach", "--all"])?;

    let attached = portdemux
        .ok(&["attach", "--mode", "native", "--rules", &file])?
        .stdout;
    ensure!(
        attached.starts_with("wire0  attached  xdp native"),
        "{attached}"
    );
    portdemux.ok(&["detach", "--all"])?;
    portdemux.ok(&["attach", "lo", "--rules", &file])?;
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["interfaces"].as_array().map(Vec::len) == Some(1),
        "{status}"
    );
    assert_eq!(status["interfaces"][0]["name"], "lo");
    Ok(())
}

#[test]
fn without_an_interface_attach_goes_where_the_rules_in_force_say() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let said = portdemux.fails(3, &["attach"])?.stderr;
    assert_eq!(
        said,
        "error: instance default is not loaded\n help: portdemux attach IFACE loads it\n"
    );
    portdemux.ok(&["attach", "lo"])?;
    let said = portdemux.fails(1, &["attach"])?.stderr;
    assert_eq!(
        said,
        "error: no interface is named: no rules are in force\n help: portdemux attach IFACE; nothing was changed\n"
    );
    portdemux.apply("[[rule]]\nport = \"9/tcp\"\n")?;
    let said = portdemux.fails(1, &["attach"])?.stderr;
    ensure!(
        said.starts_with("error: no interface is named: the rules have no [attach]\n help: "),
        "{said}"
    );
    portdemux.apply(RULES)?;
    let said = portdemux.ok(&["attach"])?.stdout;
    ensure!(said.starts_with("wire0  attached  xdp generic"), "{said}");
    Ok(())
}

#[test]
fn rules_that_name_no_interface_attach_to_none() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let file = portdemux
        .rules_file("[[rule]]\nport = \"9/tcp\"\n")?
        .display()
        .to_string();
    let Output { stderr, .. } = portdemux.fails(1, &["attach", "--rules", &file])?;
    assert_eq!(
        stderr,
        "error: no interface is named: the rules have no [attach]\n help: write interface = \"eth0\" under \
         [attach] in the rules file, or: portdemux attach eth0; nothing was changed\n"
    );
    let file = portdemux
        .rules_file("[attach]\ninterface = [\"wire0\", \"wg0\"]\n")?
        .display()
        .to_string();
    let Output { stderr, .. } = portdemux.fails(1, &["attach", "--rules", &file])?;
    ensure!(
        stderr.starts_with("error: no interface wg0 in this network namespace\n"),
        "{stderr}"
    );
    portdemux.fails(3, &["status"])?;
    Ok(())
}

#[test]
fn apply_attaches_to_nothing_and_says_where_the_rules_want_to_be() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let said = |interfaces: &str| -> Result<String> {
        let text = format!("[attach]\ninterface = [{interfaces}]\n");
        Ok(portdemux.apply(&text)?.stderr)
    };
    assert_eq!(said("\"wire0\"")?, "");
    assert_eq!(
        said("\"wire0\", \"wg0\"")?,
        "note: wg0 in [attach] is not attached: portdemux attach wg0\n"
    );
    assert_eq!(
        said("\"wg0\", \"lo\"")?,
        "note: wg0, lo in [attach] is not attached: portdemux attach wg0 lo; wire0 is attached and not in \
         [attach]: portdemux detach wire0\n"
    );
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["interfaces"].as_array().map(Vec::len) == Some(1),
        "{status}"
    );
    Ok(())
}

#[test]
fn every_instance_can_be_removed_at_once() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let none = portdemux.ok(&["detach", "--all-instances"])?.stdout;
    assert_eq!(none, "no instance is loaded\n");
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.set_instance("second");
    portdemux.ok(&["attach", "lo"])?;
    let all = portdemux.ok(&["detach", "--all-instances"])?.stdout;
    assert_eq!(
        all,
        "wire0  detached\ninstance default removed: rules and counters are gone\n\
         lo  detached\ninstance second removed: rules and counters are gone\n"
    );
    for name in ["default", "second"] {
        portdemux.set_instance(name);
        portdemux.fails(3, &["status"])?;
    }
    Ok(())
}
