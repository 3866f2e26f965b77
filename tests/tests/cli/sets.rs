//! `portdemux set`: what it says, and that a mistake changes nothing.

use std::{fmt::Write as _, fs, path::PathBuf, time::SystemTime};

use anyhow::{Result, bail, ensure};
use portdemux::rules::until::Until;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
};

use crate::bed::{Told, refused, without_time};

const RULES: &str = "\
[sets]
lan    = [\"192.0.2.0/24\", \"2001:db8::/64\"]
banned = []
spare  = \"192.0.2.7\"

[[rule]]
name = \"ssh\"
port = \"22/tcp\"
from = \"@lan\"
deny = \"@banned\"
";

/// A time after so many days and a half, in whole seconds.
fn in_days(days: u64) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let unix = (now.as_secs() + days * 86_400 + 43_200) * 1_000;
    Ok(Until { unix }.to_string())
}

fn loaded(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    Ok(portdemux)
}

#[test]
fn a_change_of_a_set_says_what_changed_and_lists_show_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let until = in_days(400)?;
    let say = |arguments: &[&str]| -> Result<String> {
        without_time(&portdemux.ok(&[&["set"], arguments].concat())?.stdout)
    };
    // The first of a family: the tables are built anew, once.
    assert_eq!(
        say(&["add", "banned", "198.51.100.7", "198.51.100.0/30"])?,
        "+ @banned  198.51.100.7\n+ @banned  198.51.100.0/30\n\
         @banned has 2 prefixes, TIME, counters kept\n"
    );
    assert_eq!(
        say(&["add", "@lan", "198.51.100.7"])?,
        "+ @lan  198.51.100.7\n@lan has 3 prefixes, TIME, counters kept\n"
    );
    assert_eq!(
        say(&["add", "banned", "198.51.100.7", "--expires", &until])?,
        format!(
            "~ @banned  198.51.100.7  for good → until {until}\n\
             @banned has 2 prefixes, TIME, counters kept\n"
        )
    );
    assert_eq!(
        say(&["add", "banned", "198.51.100.0/30"])?,
        "= @banned  198.51.100.0/30  for good\n@banned has 2 prefixes, TIME, counters kept\n"
    );
    assert_eq!(
        say(&["remove", "banned", "198.51.100.0/30"])?,
        "- @banned  198.51.100.0/30\n@banned has 1 prefix, TIME, counters kept\n"
    );
    let told = portdemux.ok(&["set", "add", "spare", "192.0.2.8"])?.stderr;
    assert_eq!(told, "note: no rule names @spare\n");

    let table = portdemux.ok(&["set", "list"])?.stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "SET      PREFIXES  EXPIRING      NEXT  RULES");
    assert_eq!(lines[1], "@lan            3         –         –  ssh");
    assert!(
        lines[2].starts_with("@banned         1         1  "),
        "{table}"
    );
    assert_eq!(lines[3], "@spare          2         –         –  –");
    let table = portdemux.ok(&["set", "list", "@banned"])?.stdout;
    assert!(
        table.starts_with("PREFIX        UNTIL                     LEFT\n"),
        "{table}"
    );
    assert!(
        table.contains(&format!("198.51.100.7  {until}  400d ")),
        "{table}"
    );
    let listed = portdemux.json(&["set", "list", "banned"])?;
    let expected = serde_json::json!([{
        "name": "banned",
        "rules": ["ssh"],
        "prefixes": [{"prefix": "198.51.100.7/32", "until": until}],
    }]);
    assert_eq!(listed["sets"], expected);
    let text = portdemux.ok(&["export"])?.stdout;
    let set = format!("banned = [{{ prefix = \"198.51.100.7\", until = \"{until}\" }}]\n");
    assert!(text.contains(&set), "{text}");
    // Applying the file again takes back what was changed since, and says so.
    let said = portdemux.apply(RULES)?.stdout;
    let plan = "~ @lan     3 prefixes → 2 prefixes\n~ @banned  1 prefix → 0 prefixes\n\
                ~ @spare   2 prefixes → 1 prefix\n= 1 unchanged\n";
    assert!(said.starts_with(plan), "{said}");
    assert_eq!(portdemux.ok(&["export"])?.stdout, RULES);
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
#[test]
fn a_change_of_a_set_that_makes_no_sense_is_told_with_a_way_out_and_changes_nothing() -> Result<()>
{
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let before = Told::by(&portdemux)?;
    let wrong_value = |value: &str, what: &str, message: &str, help: &str| {
        format!(
            "error: invalid value '{value}' for '{what}': {message}\n help: {help}\n\nFor more \
             information, try '--help'.\n"
        )
    };
    for (arguments, code, told) in [
        (
            &["add", "baned", "192.0.2.1"][..],
            1,
            "error: no set is called `baned`\n help: did you mean banned; nothing was changed\n".to_owned(),
        ),
        (
            &["remove", "nobody-knows", "192.0.2.1"],
            1,
            "error: no set is called `nobody-knows`\n help: the rules in force have lan, banned, \
             spare; nothing was changed\n"
                .into(),
        ),
        (
            &["add", "lan", "198.51.100.1", "192.0.2.7"],
            1,
            "error: 192.0.2.7 overlaps 192.0.2.0/24, which is in @lan\n help: portdemux set remove \
             lan 192.0.2.0/24 first; nothing was changed\n"
                .into(),
        ),
        (
            &["add", "lan", "2001:db8::/32"],
            1,
            "error: 2001:db8::/32 overlaps 2001:db8::/64, which is in @lan\n help: portdemux set \
             remove lan 2001:db8::/64 first; nothing was changed\n"
                .into(),
        ),
        (
            &["add", "banned", "198.51.100.0/24", "198.51.100.7"],
            1,
            "error: 198.51.100.0/24 and 198.51.100.7 overlap\n help: name each address once; \
             nothing was changed\n"
                .into(),
        ),
        (
            &["remove", "lan", "192.0.2.7"],
            1,
            "error: 192.0.2.7 is not in @lan\n help: it is part of 192.0.2.0/24, which is; nothing \
             was changed\n"
                .into(),
        ),
        (
            &["remove", "lan", "192.0.0.0/16"],
            1,
            "error: 192.0.0.0/16 is not in @lan\n help: only a part of it is: 192.0.2.0/24; nothing \
             was changed\n"
                .into(),
        ),
        (
            &["remove", "banned", "192.0.2.7"],
            1,
            "error: 192.0.2.7 is not in @banned\n help: portdemux set list banned shows who is; \
             nothing was changed\n"
                .into(),
        ),
        (
            &["add", "lan", "192.0.2.7/24"],
            2,
            wrong_value(
                "192.0.2.7/24",
                "<PREFIX>...",
                "`192.0.2.7/24` has bits set behind its first 24",
                "write 192.0.2.0/24, or 192.0.2.7 for the one address",
            ),
        ),
        (
            &["add", "banned", "192.0.2.7", "--expires", "2001-01-01T00:00:00Z"],
            2,
            wrong_value(
                "2001-01-01T00:00:00Z",
                "--expires <WHEN>",
                "`2001-01-01T00:00:00Z` is past",
                "say a time that is still to come",
            ),
        ),
        (
            &["add", "banned", "192.0.2.7", "--expires", "-5m"],
            2,
            wrong_value(
                "-5m",
                "--expires <WHEN>",
                "`-5m` is neither a duration nor a time",
                "write it as in 90s, 10m, 12h, 7d or 2w, or as in 2030-01-31T12:00:00Z",
            ),
        ),
        (
            &["add", "banned", "192.0.2.7", "--expires", "1000w"],
            2,
            wrong_value(
                "1000w",
                "--expires <WHEN>",
                "`1000w` is longer than ten years",
                "leave it out to have it for good",
            ),
        ),
    ] {
        let arguments = [&["set"], arguments].concat();
        assert_eq!(refused(&portdemux, &before, code, &arguments)?, told);
    }
    Ok(())
}

#[test]
fn a_member_that_is_written_wrongly_is_told_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let before = Told::by(&portdemux)?;
    for (rules, message) in [
        (
            "[sets]\na = [{ prefix = \"192.0.2.1\" }]\n",
            "a member of a set needs `prefix` and `until`",
        ),
        (
            "[sets]\na = [{ prefix = \"192.0.2.1\", until = \"soon\" }]\n",
            "`soon` is not a time",
        ),
        (
            "[sets]\na = [\"192.0.2.1\", { prefix = \"192.0.2.1\", until = \"2099-01-01T00:00:00Z\" }]\n",
            "192.0.2.1/32 is in the set `a` twice",
        ),
        (
            "[sets]\na = [{ prefix = \"192.0.2.1\", till = \"2099-01-01T00:00:00Z\" }]\n",
            "unknown key `till` in a member of a set",
        ),
        (
            "[sets]\na = [{ prefix = \"192.0.2.1\", until = \"2020-01-01T00:00:00Z\" }]\n",
            "`2020-01-01T00:00:00Z` is past",
        ),
        (
            "[sets]\na = [\"192.0.2.0/24\", \"2001:db8::/32\", \"2001:db8:7::/48\"]\n",
            "prefixes of the set `a` overlap",
        ),
        (
            "[sets]\na = [\"192.0.2.1\", \"192.0.2.0\", \"192.0.2.1/32\"]\n",
            "192.0.2.1 is in the set `a` twice",
        ),
    ] {
        let file = portdemux.rules_file(rules)?;
        let file = file.display().to_string();
        let told = refused(&portdemux, &before, 1, &["apply", &file])?;
        assert!(told.starts_with(&format!("error: {message}\n")), "{told}");
        assert!(told.contains("; nothing was changed\n"), "{told}");
    }
    let rules =
        "[sets]\na = [\n    \"192.0.2.7\",\n    \"198.51.100.1\",\n    \"192.0.2.0/24\",\n]\n";
    let file = portdemux.rules_file(rules)?.display().to_string();
    assert_eq!(
        refused(
            &portdemux,
            &before,
            1,
            &["attach", INTERFACE, "--rules", &file]
        )?,
        format!(
            "error: prefixes of the set `a` overlap\n  192.0.2.0/24  {file}:5\n  192.0.2.7     {file}:3\n \
             help: write each address once; nothing was changed\n"
        )
    );
    Ok(())
}

#[test]
fn a_member_whose_time_is_past_is_refused_or_told_of_and_is_in_no_set() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let before = Told::by(&portdemux)?;
    // A prefix that is in the set no more overlaps nobody's.
    let file = portdemux.rules_file(
        "[sets]\na = [\n    \"192.0.2.9\",\n    { prefix = \"192.0.2.1\", until = \"2020-01-01T00:00:00Z\" },\n    \
         { prefix = \"192.0.2.0/24\", until = \"2020-01-02T00:00:00Z\" },\n]\n\
         [[rule]]\nport = \"80/tcp\"\nfrom = \"@a\"\n",
    )?;
    let file = file.display().to_string();
    let told = refused(&portdemux, &before, 1, &["apply", &file])?;
    assert_eq!(
        told,
        format!(
            "error: `2020-01-01T00:00:00Z` is past\n  {{ prefix = \"192.0.2.1\", until = \"2020-01-01T00:00:00Z\" }},  \
             {file}:4\n help: say a time that is still to come, or leave the member out\n\
             error: `2020-01-02T00:00:00Z` is past\n  {{ prefix = \"192.0.2.0/24\", until = \"2020-01-02T00:00:00Z\" }},  \
             {file}:5\n help: say a time that is still to come, or leave the member out\n\
             2 errors; nothing was changed\n"
        )
    );
    let dry = portdemux.ok(&["apply", &file, "--skip-expired", "--dry-run"])?;
    ensure!(
        dry.stdout.starts_with("+ @a       1 prefix\n"),
        "{}",
        dry.stdout
    );
    let told = portdemux.ok(&["attach", INTERFACE, "--rules", &file, "--skip-expired"])?;
    assert_eq!(told.stderr, dry.stderr);
    assert_eq!(
        told.stderr,
        "warning: 192.0.2.0/24 is not in @a: its time ended 2020-01-02T00:00:00Z and one more like it\n   \
         help: take it out of the file, or give it a time that is still to come\n"
    );
    let list = portdemux.json(&["set", "list", "a"])?;
    assert_eq!(
        list["sets"][0]["prefixes"],
        serde_json::json!([{ "prefix": "192.0.2.9/32", "until": null }])
    );
    // What is exported can be applied.
    let exported = portdemux.ok(&["export"])?.stdout;
    assert_eq!(
        exported,
        "[sets]\na = [\n    \"192.0.2.9\",\n]\n[[rule]]\nport = \"80/tcp\"\nfrom = \"@a\"\n"
    );
    portdemux.apply(&exported)?;
    Ok(())
}

#[test]
fn large_sets_are_the_same_whether_or_not_they_are_kept_beside_the_text() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let mut rules = String::from("[sets]\nsmall = [\"192.0.2.1\"]\nlarge = [\n");
    for number in 0..5_000 {
        let _ = writeln!(rules, "    \"10.0.{}.{}\",", number / 256, number % 256);
    }
    rules.push_str("]\n[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\nfrom = \"@large\"\n");
    portdemux.apply(&rules)?;
    portdemux.ok(&["set", "add", "large", "198.51.100.7"])?;
    portdemux.ok(&["set", "remove", "large", "10.0.0.1"])?;
    let kept = || -> Result<Vec<PathBuf>> {
        let all = fs::read_dir(portdemux.state().join("default"))?;
        let all = all.flatten().map(|entry| entry.path());
        let is_kept = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "sets");
        Ok(all.filter(is_kept).collect())
    };
    let told = || -> Result<[String; 4]> {
        let say = |arguments: &[&str]| -> Result<String> { Ok(portdemux.ok(arguments)?.stdout) };
        Ok([
            say(&["set", "list", "large"])?,
            say(&["set", "list", "--json"])?,
            say(&["rules"])?,
            say(&["export"])?,
        ])
    };
    let before = told()?;
    assert_eq!(before[0].lines().count(), 1 + 5_000);
    assert!(before[0].contains("198.51.100.7") && !before[0].contains("10.0.0.1 "));
    let [file] = &kept()?[..] else {
        bail!("{:?}", kept()?);
    };
    fs::write(file, &fs::read(file)?[..1_000])?;
    assert_eq!(told()?, before);
    fs::remove_file(file)?;
    assert_eq!(told()?, before);
    // What is in force next has its own, or none if its sets are small.
    portdemux.ok(&["add", "80/tcp"])?;
    assert_eq!(kept()?.len(), 1);
    portdemux.apply("[sets]\nlarge = []\n")?;
    assert_eq!(kept()?, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn sets_over_the_limit_are_refused_and_nothing_is_changed() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let before = Told::by(&portdemux)?;
    let mut rules = String::from("[[rule]]\nport = \"80/tcp\"\nfrom = \"@a\"\n[sets]\na = [");
    for number in 0..=portdemux_common::sources::MAX_PREFIXES {
        let address = std::net::Ipv4Addr::from(0x0b00_0000 + u32::try_from(2 * number)?);
        write!(rules, "\"{address}\",")?;
    }
    rules.push_str("]\n");
    let file = portdemux.rules_file(&rules)?.display().to_string();
    assert_eq!(
        refused(&portdemux, &before, 1, &["apply", &file])?,
        "error: 4194305 prefixes in the lists of all rules, 4194304 at most\n \
         help: join prefixes to shorter ones, or let rules share a set; nothing was changed\n"
    );
    Ok(())
}
