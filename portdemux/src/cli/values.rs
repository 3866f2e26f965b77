//! Values of the command line, each read with help for who writes it wrongly.

use std::net::IpAddr;

use crate::rules::{
    Destination, PortRange, Rate, Source, Word,
    destination::{DestinationError, Mac, MacError, check_queue},
    port::PortError,
    rate::{RateError, check_burst},
    rule,
    source::SourceError,
    word,
};

/// Reads ports of the command line, and says how to write them.
pub(super) fn port(text: &str) -> Result<PortRange, String> {
    let port: Result<PortRange, PortError> = text.parse();
    port.map_err(|error| with_help(&error, &error.help()))
}

/// Reads an address of the command line, and says how to write one.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    rule::parse_address(text).map_err(|error| with_help(&error, &error.help()))
}

/// Reads a source of the command line, and says how to write one.
pub(super) fn source(text: &str) -> Result<Source, String> {
    let source: Result<Source, SourceError> = text.parse();
    source.map_err(|error| with_help(&error, &error.help()))
}

/// Reads a destination of the command line, and says which there are.
pub(super) fn destination(text: &str) -> Result<Destination, String> {
    let destination: Result<Destination, DestinationError> = text.parse();
    destination.map_err(|error| with_help(&error, &error.help(|to| format!("--to {to}"))))
}

/// Reads a MAC address of the command line, and says how to write one.
pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let mac: Result<Mac, MacError> = text.parse();
    mac.map_err(|error| with_help(&error, &error.help()))
}

/// Reads the length of a queue of the command line, and says how long it can be.
pub(super) fn queue(text: &str) -> Result<u16, String> {
    let frames = text.parse().map_err(|_| {
        format!(
            "`{}` is no number\n help: write how many frames, as in 2048",
            text.escape_debug()
        )
    })?;
    check_queue(frames).map_err(|error| with_help(&error, &error.help(str::to_owned)))
}

/// Reads one of a few words of the command line, and says which there are.
pub(super) fn word<W: Word>(text: &str) -> Result<W, String> {
    W::of(text).ok_or_else(|| {
        let help = word::instead_of::<W>(text, str::to_owned);
        format!("unknown word `{}`\n help: {help}", text.escape_debug())
    })
}

/// Reads a rate of the command line, and says how to write one.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let rate: Result<Rate, RateError> = text.parse();
    rate.map_err(|error| with_help(&error, &error.help()))
}

/// Reads a burst of the command line, and says how large it can be.
pub(super) fn burst(text: &str) -> Result<u64, String> {
    let burst = text.parse().map_err(|_| {
        format!(
            "`{}` is no number\n help: write how many packets, as in 50",
            text.escape_debug()
        )
    })?;
    check_burst(burst).map_err(|error| with_help(&error, &error.help()))?;
    Ok(burst)
}

pub(super) fn with_help(error: &dyn std::error::Error, help: &str) -> String {
    format!("{error}\n help: {help}")
}
