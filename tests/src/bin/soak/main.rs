//! Traffic of every kind for minutes, under rules that change all the time: see [`portdemux_tests::soak`].

use std::{
    io::{Write as _, stdout},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use portdemux_tests::{require, soak};

/// Send traffic of every kind while the rules change, and hold every counter to what was sent
#[derive(Debug, Parser)]
struct Args {
    /// For how long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Where the program runs
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    mode: Mode,
    /// What everything random follows from; a new one unless it is given
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Native,
    Generic,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(require::have(require::WIRE), "the soak cannot run here");
    let seed = args.seed.map_or_else(
        || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            anyhow::Ok(now.as_secs())
        },
        Ok,
    )?;
    writeln!(stdout(), "seed {seed}")?;
    let mode = match args.mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    };
    let time = Duration::try_from_secs_f64(args.minutes * 60.0)?;
    soak::run(mode, time, seed, |look| {
        // Whoever does not want to see it any more ends the soak otherwise.
        let _ = writeln!(stdout(), "{look}");
    })?;
    writeln!(stdout(), "no difference")?;
    Ok(())
}
