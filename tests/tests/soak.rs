//! A short soak; `cargo xtask soak` is the long one.

use std::time::Duration;

use anyhow::Result;
use portdemux_tests::{
    require::{self, Need},
    soak,
};

fn soak_in(mode: &str, seed: u64) -> Result<()> {
    let mut needs = require::WIRE.to_vec();
    needs.push(Need::Tool("ping"));
    if !require::have(&needs) {
        return Ok(());
    }
    let look = soak::run(mode, Duration::from_secs(8), seed, |_| ())?;
    assert!(
        look.sent > 1000 && look.dropped > 100 && look.answered > 100 && look.changes > 5,
        "{look}"
    );
    Ok(())
}

#[test]
fn counters_say_what_was_sent_whatever_the_rules_become_in_native_mode() -> Result<()> {
    soak_in("native", 1)
}

#[test]
fn counters_say_what_was_sent_whatever_the_rules_become_in_generic_mode() -> Result<()> {
    soak_in("generic", 2)
}
