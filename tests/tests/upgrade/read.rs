//! What an older version made is read as it is; what a newer one made is refused.

use std::fs;

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    run::Running,
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::bed::{self, Pair};

/// Everything that counts or names something, as JSON, without what depends on the version that prints it.
fn said(portdemux: &Portdemux) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for noun in [
        &["stats", "--all"][..],
        &["rules"],
        &["set", "list"],
        &["set", "list", "banned"],
        &["flows"],
    ] {
        all.push(portdemux.json(noun)?);
    }
    Ok(all)
}

/// Whether a document says all that another one says; a newer version says more.
fn has(document: &Value, other: &Value) -> bool {
    match (document, other) {
        // What says how long something lasts says something else each time.
        (Value::Object(all), Value::Object(some)) => some
            .iter()
            .filter(|(key, _)| !key.ends_with("seconds") && *key != "time")
            .all(|(key, value)| all.get(key).is_some_and(|there| has(there, value))),
        (Value::Array(all), Value::Array(some)) => {
            all.len() == some.len() && all.iter().zip(some).all(|(one, other)| has(one, other))
        }
        _ => document == other,
    }
}

#[test]
fn nouns_read_what_an_older_version_made_and_verbs_leave_it_alone() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    let rules = pair.attach_older(&mut portdemux, &[])?;
    portdemux.ok(&["set", "add", "banned", "203.0.113.9"])?;
    probe.passing(&[1001, 1003, 1005, 9])?;
    let (exported, before) = (portdemux.ok(&["export"])?, said(&portdemux)?);
    let directories = bed::directories(&portdemux)?;

    pair.use_newer(&mut portdemux);
    bed::same(&exported, &portdemux.ok(&["export"])?)?;
    let after = said(&portdemux)?;
    for (before, after) in before.iter().zip(&after) {
        ensure!(has(after, before), "{pair:?}: {before}\n{after}");
    }
    let status = portdemux.json(&["status"])?;
    ensure!(status["interfaces"][0]["state"] == "attached", "{status}");
    ensure!(
        status["generation"] == 1 && status["rules"] == 3,
        "{status}"
    );
    for verb in [
        &["add", "9/udp"][..],
        &["apply", &rules],
        &["set", "add", "banned", "203.0.113.10"],
        &["confirm"],
        &["detach", INTERFACE],
        &["follow"],
    ] {
        let refused = portdemux.fails(1, verb)?;
        for word in ["an older version", "upgrade takes it over"] {
            ensure!(refused.stderr.contains(word), "{}", refused.stderr);
        }
    }
    ensure!(bed::directories(&portdemux)? == directories);
    ensure!(probe.passing(&[1001, 1003, 9])?.contains(&1003));
    Ok(())
}

#[test]
fn counters_that_are_watched_go_on_when_the_instance_is_taken_over_and_end_with_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    pair.attach_older(&mut portdemux, &[])?;
    probe.passing(&[1003])?;
    pair.use_newer(&mut portdemux);
    let words = ["stats", "1003/udp", "--watch", "0.05", "--json"];
    let watch = Running::spawn(portdemux.command(&words))?;
    // The last complete line.
    let received = || -> Result<Option<u64>> {
        let said = watch.stdout();
        let Some(line) = said.rsplit('\n').nth(1) else {
            return Ok(None);
        };
        let document: Value = serde_json::from_str(line)?;
        Ok(document["ports"][0]["received"]["packets"].as_u64())
    };
    wait_until("the packet before", PATIENCE, || Ok(received()? == Some(1)))?;
    portdemux.ok(&["upgrade"])?;
    probe.passing(&[1003])?;
    wait_until("the packet after", PATIENCE, || Ok(received()? == Some(2)))?;
    portdemux.ok(&["detach", "--all"])?;
    let ended = watch.wait(PATIENCE)?;
    ensure!(ended.code() == Some(3), "{}", ended.stderr);
    ensure!(ended.stderr.contains("is not loaded"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn an_older_version_refuses_what_a_newer_one_made_and_touches_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    pair.use_newer(&mut portdemux);
    let rules = bed::rules(&portdemux)?;
    portdemux.ok(&["attach", INTERFACE, "--rules", &rules])?;
    let counters = portdemux.stats()?;

    pair.use_older(&mut portdemux);
    let mut commands = vec![
        vec!["status"],
        vec!["stats"],
        vec!["export"],
        vec!["add", "9/udp"],
        vec!["attach", INTERFACE],
        vec!["apply", &rules],
        vec!["confirm"],
        vec!["follow"],
    ];
    if pair.abis[0] > 5 {
        // One of ABI 5 removes what it does not know.
        commands.push(vec!["detach", "--all"]);
        commands.push(vec!["upgrade"]);
    }
    for command in commands {
        let refused = portdemux.fails(1, &command)?;
        let other = format!("ABI {}", pair.abis[1]);
        ensure!(refused.stderr.contains(&other), "{}", refused.stderr);
    }

    pair.use_newer(&mut portdemux);
    ensure!(portdemux.stats()?.generation()? == counters.generation()?);
    let status = portdemux.json(&["status"])?;
    ensure!(status["interfaces"][0]["state"] == "attached", "{status}");
    Ok(())
}

/// A kill between the two renames leaves only a directory that has not got its name yet.
#[test]
fn an_older_version_refuses_what_a_newer_one_has_half_taken_over() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let rules = pair.attach_older(&mut portdemux, &[])?;
    let instance = portdemux.bpffs().join("portdemux/default");
    let [older, newer] = pair.abis;
    let mut made = vec![format!("abi0{newer}")];
    if older <= 6 {
        // What a takeover makes beside it for those that do not know such a directory.
        made.push(format!("abi+{newer}"));
    }
    let whole = instance.join(format!("abi{older}"));
    for name in &made {
        fs::create_dir(instance.join(name))?;
    }
    let aside = instance.join(&made[0]).join(format!("older{older}"));
    fs::rename(&whole, &aside)?;
    for command in [
        &["status"][..],
        &["attach", INTERFACE],
        &["apply", &rules],
        &["detach", INTERFACE],
    ] {
        let refused = portdemux.fails(1, command)?.stderr;
        // Those call it by the number as it stands there.
        let names = ["", "0", "+"].map(|sign| format!("ABI {sign}{newer}"));
        let is_named = names.iter().any(|name| refused.contains(name));
        ensure!(is_named, "{refused}");
    }
    ensure!(bed::directories(&portdemux)? == made.iter().cloned().collect());
    fs::rename(&aside, &whole)?;
    for name in &made {
        fs::remove_dir(instance.join(name))?;
    }
    portdemux.ok(&["status"])?;
    Ok(())
}

#[test]
fn where_nothing_is_loaded_an_upgrade_has_nothing_to_do() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    for words in [&["upgrade"][..], &["upgrade", "--all"]] {
        let said = portdemux.ok(words)?;
        ensure!(said.stdout.contains("nothing to do"), "{}", said.stdout);
    }
    portdemux.fails(3, &["status"])?;
    Ok(())
}

#[test]
fn an_upgrade_of_all_instances_takes_each_over_and_does_it_again_without_harm() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    let rules = pair.attach_older(&mut portdemux, &[])?;
    portdemux.set_instance("second");
    portdemux.ok(&["attach", "lo", "--mode", "generic", "--rules", &rules])?;
    pair.use_newer(&mut portdemux);
    for round in 0..2 {
        let said = portdemux.ok(&["upgrade", "--all"])?;
        for instance in ["default", "second"] {
            ensure!(said.stdout.contains(instance), "{}", said.stdout);
            portdemux.set_instance(instance);
            let status = portdemux.json(&["status"])?;
            ensure!(
                status["interfaces"][0]["state"] == "attached",
                "{round}: {status}"
            );
            ensure!(bed::directories_of(&portdemux, instance)?.len() == 1);
        }
        ensure!(probe.passing(&[1001, 1003, 9])? == [1003].into());
    }
    portdemux.set_instance("second");
    portdemux.ok(&["detach", "--all"])?;
    portdemux.set_instance("default");
    Ok(())
}
