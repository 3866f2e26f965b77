//! Tells the BPF linker how to compile the programs.

use std::{env, io::Write as _};

fn main() {
    let is_bpf = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf");
    let arguments: &[&str] = if is_bpf {
        &[
            // Copies become loads and stores in whatever order is cheapest, not byte by byte.
            "--disable-expand-memcpy-in-order",
            // One load for a field of a header, which need not be aligned. The verifier allows that
            // for packets and map values on every platform where the CPU does, never for the stack;
            // `cargo xtask load` shows that none is compiled there.
            "--cpu-features=+allows-misaligned-mem-access",
        ]
    } else {
        &[]
    };
    let mut cargo = std::io::stdout();
    let _ = writeln!(cargo, "cargo::rerun-if-changed=build.rs");
    for argument in arguments {
        let _ = writeln!(cargo, "cargo::rustc-link-arg-bins={argument}");
    }
}
