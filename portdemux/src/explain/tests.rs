//! What is said about frames, to programs and to people.

mod frames;
mod kernel;
mod reports;

use portdemux_common::wire::Transport;

use super::{
    packet::{self, Endpoint},
    *,
};

const RULES: &str = r#"
[[rule]]
name = "legacy"
port = "20-25/tcp"

[[rule]]
name = "ssh"
port = "22/tcp"
to   = "drop"

[[rule]]
name    = "login"
port    = ["1-100/tcp", "53/udp"]
address = ["203.0.113.10", "2001:db8::10"]
"#;

fn basis() -> Basis<'static> {
    Basis::from_text("portdemux.toml", RULES).unwrap()
}

fn frame(transport: Transport, source: &str, destination: &str) -> Vec<u8> {
    let end = |text: &str| text.parse::<Endpoint>().unwrap().0;
    packet::frame(transport, end(source), end(destination)).unwrap()
}

fn ssh() -> Vec<u8> {
    frame(Transport::Tcp, "198.51.100.7:52341", "203.0.113.11:22")
}

/// Puts VLAN tags before a frame's `EtherType`.
fn tagged(frame: &[u8], ids: &[u16]) -> Vec<u8> {
    let tags = ids
        .iter()
        .flat_map(|id| [0x81, 0x00, (id >> 8) as u8, (id & 0xff) as u8]);
    let mut tagged = frame[..12].to_vec();
    tagged.extend(tags);
    tagged.extend(&frame[12..]);
    tagged
}

/// Sets bytes of a frame.
fn with(mut frame: Vec<u8>, bytes: &[(usize, u8)]) -> Vec<u8> {
    for &(at, byte) in bytes {
        frame[at] = byte;
    }
    frame
}

fn json(frame: &[u8]) -> String {
    serde_json::to_string(&basis().explain(1, frame).line(None)).unwrap()
}

fn said(frame: &[u8]) -> String {
    basis().explain(1, frame).to_string()
}
