//! Kernels that lack what a kind of destination needs.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    release::Lacking,
    require::{self, Need},
};

/// A kind of destination, what the kernel lacks, and what that is called.
const KINDS: [(&str, &str, Lacking, &str); 4] = [
    (
        "interface",
        "interface:lo",
        Lacking::Maps(14),
        "BPF_MAP_TYPE_DEVMAP",
    ),
    ("cpu", "cpu:0", Lacking::Maps(16), "BPF_MAP_TYPE_CPUMAP"),
    (
        "xsk",
        "xsk:echo",
        Lacking::Maps(17),
        "BPF_MAP_TYPE_XSKMAP (CONFIG_XDP_SOCKETS)",
    ),
    (
        "socket",
        "socket:127.0.0.1:8080",
        Lacking::Programs(30),
        "BPF_PROG_TYPE_SK_LOOKUP",
    ),
];

fn can_run() -> bool {
    let mut needs = require::WIRE.to_vec();
    needs.push(Need::Tool("cc"));
    require::have(&needs)
}

#[test]
fn a_rule_is_refused_by_the_name_of_the_feature_that_the_kernel_lacks() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply("[[rule]]\nname = \"old\"\nport = \"1/udp\"\n")?;
    for (kind, to, lacking, feature) in KINDS {
        portdemux.pretend_lacking(lacking)?;
        let rules = portdemux.rules_file(&format!(
            "[[rule]]\nname = \"new\"\nport = \"2/tcp\"\nto = \"{to}\"\n"
        ))?;
        let file = rules.to_string_lossy();
        for arguments in [&["apply"][..], &["apply", "--dry-run"]] {
            let arguments = [arguments, &[&*file]].concat();
            let told = portdemux.fails(1, &arguments)?.stderr;
            let expected =
                format!("this kernel lacks {feature}, which to = \"{to}\" needs (rule new)");
            ensure!(told.contains(&expected), "{told}");
            ensure!(told.contains("nothing was changed"), "{told}");
        }
        let status = portdemux.json(&["status"])?;
        assert_eq!(status["generation"], 1, "{kind}");
        let kinds = status["kinds"].as_array().into_iter().flatten();
        for known in kinds {
            assert_eq!(known["available"], known["kind"] != kind, "{kind}: {known}");
            if known["kind"] == kind {
                assert_eq!(known["needs"], feature);
            }
        }
    }
    Ok(())
}

/// What is built into every kernel with BPF cannot lack; AF_XDP and raw tracepoints can.
#[test]
fn without_af_xdp_or_tracepoints_everything_else_works() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    // Map type 17 is that of AF_XDP, program type 17 that of raw tracepoints.
    for lacking in [Lacking::Maps(17), Lacking::Programs(17)] {
        let mut portdemux = Portdemux::new(&lab.server)?;
        portdemux.pretend_lacking(lacking)?;
        portdemux.ok(&["attach", INTERFACE])?;
        let told = portdemux
            .apply("[[rule]]\nname = \"a\"\nport = \"1/udp\"\nto = \"cpu:0\"\n")?
            .stderr;
        let counted = portdemux.json(&["status"])?["losses_counted"].as_bool();
        assert_eq!(counted, Some(lacking == Lacking::Maps(17)), "{told}");
        let page = portdemux.ok(&["status"])?.stdout;
        if lacking == Lacking::Programs(17) {
            ensure!(
                told.contains("what targets do not take of their packets is not counted"),
                "{told}"
            );
            ensure!(
                page.contains("what targets do not take is not counted"),
                "{page}"
            );
        }
        portdemux.ok(&["detach", "--all"])?;
    }
    Ok(())
}
