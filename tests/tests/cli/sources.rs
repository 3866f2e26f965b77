//! Lists of sources on the command line: what is said of changes to them, and how they are shown.

use anyhow::Result;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
};

use crate::bed::{Told, busy, refused, without_time};

const BEFORE: &str = "\
[sets]
lan  = [\"192.0.2.0/24\", \"2001:db8::/64\"]
boss = \"192.0.2.7\"

[[rule]]
name = \"ssh\"
port = \"22/tcp\"
from = \"@lan\"

[[rule]]
name = \"web\"
port = \"80/tcp\"
";

const AFTER: &str = "\
[sets]
lan   = [\"192.0.2.0/25\", \"2001:db8::/64\"]
guest = []

[[rule]]
name = \"ssh\"
port = \"22/tcp\"
from = [\"@lan\", \"198.51.100.0/24\"]

[[rule]]
name = \"web\"
port = \"80/tcp\"
deny = \"@guest\"

[[rule]]
name = \"dns\"
port = \"53/udp\"
from = \"@lan\"
deny = [\"192.0.2.66\", \"@guest\"]
";

const PLAN: &str = "\
~ @lan    2 prefixes → 2 others
+ @guest  0 prefixes
- @boss
+ dns     53/udp  any address → local, from @lan, deny 192.0.2.66 @guest
~ ssh     from @lan → from @lan 198.51.100.0/24
~ web     no deny → deny @guest
= 0 unchanged
";

const TABLE: &str = "\
RULE  PORTS   ADDRESS  FROM                        TO     LISTENER  RECEIVED  BYTES  DROPPED
ssh   22/tcp  any      @lan 198.51.100.0/24        local  –                0    0 B        0
web   80/tcp  any      any but @guest              local  –                0    0 B        0
dns   53/udp  any      @lan but 192.0.2.66 @guest  local  –                0    0 B        0
";

fn loaded(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(BEFORE)?;
    Ok(portdemux)
}

#[test]
fn a_plan_names_sets_and_sources_that_differ_and_the_table_shows_them() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let said = portdemux.apply(AFTER)?.stdout;
    let plan = without_time(&said)?;
    assert_eq!(plan, format!("{PLAN}generation 2, TIME, counters kept\n"));
    let table = portdemux.ok(&["rules"])?.stdout;
    assert_eq!(table, TABLE);
    // Nothing but the order of a list differs: nothing is said to change.
    let reordered = AFTER.replace("\"192.0.2.66\", \"@guest\"", "\"@guest\", \"192.0.2.66\"");
    let said = portdemux.apply(&reordered)?.stdout;
    assert!(said.starts_with("= 3 unchanged\n"), "{said}");
    Ok(())
}

#[test]
fn a_rule_is_added_with_its_sources_and_its_text_says_them() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let said = portdemux.ok(&[
        "add",
        "443/tcp",
        "--name",
        "https",
        "--from",
        "@lan,198.51.100.7",
        "--from",
        "2001:db8:7::/48",
        "--deny",
        "@boss",
    ])?;
    let said = without_time(&said.stdout)?;
    assert_eq!(
        said,
        "+ https  443/tcp  any address → local, from @lan 198.51.100.7 2001:db8:7::/48, deny @boss\n\
         = 2 unchanged\ngeneration 2, TIME, counters kept\n"
    );
    let text = portdemux.ok(&["export"])?.stdout;
    let rule = "\n[[rule]]\nname = \"https\"\nport = \"443/tcp\"\nfrom = [\"@lan\", \
                \"198.51.100.7\", \"2001:db8:7::/48\"]\ndeny = \"@boss\"\nto   = \"local\"\n";
    assert_eq!(text, format!("{BEFORE}{rule}"));
    Ok(())
}

#[test]
fn a_source_that_makes_no_sense_is_told_with_a_way_out_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (source, message, help) in [
        (
            "192.0.2.7/24",
            "`192.0.2.7/24` has bits set behind its first 24",
            "write 192.0.2.0/24, or 192.0.2.7 for the one address",
        ),
        (
            "lan",
            "`lan` is not a prefix, an address or a set",
            "a set is written @lan, a prefix as in 192.0.2.0/24",
        ),
    ] {
        for flag in ["--from", "--deny"] {
            let told = refused(&portdemux, &before, 2, &["add", "1/tcp", flag, source])?;
            let expected = format!(
                "error: invalid value '{source}' for '{flag} <SOURCE>': {message}\n help: \
                 {help}\n\nFor more information, try '--help'.\n"
            );
            assert_eq!(told, expected);
        }
    }
    let told = refused(&portdemux, &before, 1, &["add", "1/tcp", "--from", "@lan"])?;
    assert!(
        told.starts_with("error: no set is called `lan`\n"),
        "{told}"
    );
    assert!(
        told.ends_with(
            "help: define it: [sets], then lan = [\"192.0.2.0/24\"]; nothing was changed\n"
        ),
        "{told}"
    );
    Ok(())
}
