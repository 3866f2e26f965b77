//! Tells the BPF linker how to compile the programs.

use std::{env, io::Write as _};

fn main() {
    let is_bpf = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf");
    let arguments: &[&str] = if is_bpf {
        &[
            // Copies become loads and stores in whatever order is cheapest, not byte by byte.
            "--disable-expand-memcpy-in-order",
        ]
    } else {
        &[]
    };
    let mut cargo = std::io::stdout();
    let _ = writeln!(cargo, "cargo::rerun-if-changed=build.rs");
    // Who builds the programs says which machine they run on.
    let _ = writeln!(
        cargo,
        "cargo::rustc-check-cfg=cfg(bpf_target_arch, values(any()))"
    );
    for argument in arguments {
        let _ = writeln!(cargo, "cargo::rustc-link-arg-bins={argument}");
    }
}
