//! `portdemux guard`: what `--confirm` starts. It is no verb for people.

use anyhow::Result;

use super::Context;
use crate::pending::guardian;

/// Undo a change that nobody confirms
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {}

pub(super) fn run(Args {}: &Args, context: &Context) -> Result<()> {
    guardian::run(&context.places)
}
