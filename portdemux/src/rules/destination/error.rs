//! What is wrong with a destination.

use std::net::{IpAddr, SocketAddr};

use portdemux_common::capacity::NAME_LENGTH;

use super::{MAX_CPU, MAX_CPUS, MAX_DESTINATION_NAME, MAX_QUEUE, WORDS};
use crate::rules::nearest::nearest;

/// The kinds of destinations that have a name.
const KINDS: [&str; 4] = ["socket", "interface", "cpu", "xsk"];

/// What is wrong with a destination, or with what is said about the way to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// There is no such destination.
    #[error("unknown destination `{}`", .0.escape_debug())]
    Unknown(String),
    /// The kind has no name behind it.
    #[error("`{0}:` without a name")]
    NoName(&'static str),
    /// The name of a socket or of an AF_XDP program has something else in it than it can have.
    #[error("the name `{}` cannot be a destination's", .0.escape_debug())]
    BadName(String),
    /// No interface can have so long a name.
    #[error("the interface name `{}` is too long", .0.escape_debug())]
    LongInterface(String),
    /// No interface can have this name.
    #[error("no interface can be called `{}`", .0.escape_debug())]
    BadInterface(String),
    /// A port was written where an address and a port are meant.
    #[error("`socket:{0}` names a port without an address")]
    PortAlone(String),
    /// An address was written without a port.
    #[error("`{0}` is an address without a port")]
    NoPort(IpAddr),
    /// Neither a name nor an address with a port.
    #[error("`{}` is neither an address with a port nor a name", .0.escape_debug())]
    NotASocket(String),
    /// Nothing listens on port 0.
    #[error("nothing listens on port 0: `{0}`")]
    PortZero(String),
    /// An IPv4 address was written inside an IPv6 one.
    #[error("`{0}` is an IPv4 address inside an IPv6 one")]
    MappedSocket(SocketAddr),
    /// Not the number of a CPU.
    #[error("`{}` is no CPU", .0.escape_debug())]
    NotACpu(String),
    /// No machine has so many CPUs.
    #[error("there is no CPU {0}")]
    HighCpu(String),
    /// A range of CPUs that ends before it begins.
    #[error("the range {first}-{last} ends before it begins")]
    ReversedCpus {
        /// Where it begins.
        first: u16,
        /// Where it ends.
        last: u16,
    },
    /// More CPUs than a rule can have.
    #[error("{0} CPUs are too many")]
    ManyCpus(usize),
    /// A queue that no CPU can have.
    #[error("a queue cannot have {0} frames")]
    Queue(u64),
    /// `fallback` where nothing can be missing.
    #[error("`fallback` with `to = \"{0}\"`")]
    NeverMissing(String),
    /// `mac` for something else than an interface.
    #[error("`mac` with `to = \"{0}\"`")]
    MacElsewhere(String),
    /// `queue` for something else than CPUs.
    #[error("`queue` with `to = \"{0}\"`")]
    QueueElsewhere(String),
}

impl DestinationError {
    /// What to write instead; `show` is how a destination is written.
    #[must_use]
    pub fn help(&self, show: impl Fn(&str) -> String) -> String {
        match self {
            Self::Unknown(text) => instead_of(text, show),
            Self::NoName("interface") => "as in interface:veth0".into(),
            Self::NoName(_) => "as in xsk:echo or socket:web".into(),
            Self::BadName(_) => format!(
                "names of sockets and of AF_XDP programs have 1 to {MAX_DESTINATION_NAME} letters, \
                 digits, - and _"
            ),
            Self::LongInterface(_) => {
                format!("names of interfaces have at most {} bytes", NAME_LENGTH - 1)
            }
            Self::BadInterface(_) => "ip -br link lists the names of interfaces".into(),
            Self::PortAlone(port) => format!("write {}", show(&format!("socket:127.0.0.1:{port}"))),
            Self::NoPort(IpAddr::V4(ip)) => format!("write {}", show(&format!("socket:{ip}:8080"))),
            Self::NoPort(IpAddr::V6(ip)) => {
                format!("write {}", show(&format!("socket:[{ip}]:8080")))
            }
            Self::NotASocket(_) => {
                "as in socket:localhost:8080, socket:127.0.0.1:8080, socket:[::1]:8080 or socket:web".into()
            }
            Self::PortZero(_) => "name the port that the socket listens on".into(),
            Self::MappedSocket(address) => {
                let (ip, port) = (address.ip().to_canonical(), address.port());
                format!("write it as IPv4: {}", show(&format!("socket:{ip}:{port}")))
            }
            Self::NotACpu(_) => {
                "write numbers and ranges of CPUs, as in cpu:2-5 or cpu:0,2-3".into()
            }
            Self::HighCpu(_) => format!("CPUs have numbers from 0 to {MAX_CPU} at most"),
            Self::ReversedCpus { first, last } => format!("write {last}-{first}"),
            Self::ManyCpus(_) => format!("a rule has at most {MAX_CPUS} CPUs"),
            Self::Queue(_) => format!("write a number of frames from 1 to {MAX_QUEUE}, as in 2048"),
            Self::NeverMissing(_) => {
                "leave `fallback` out: it is for sockets, interfaces and xsk, which can be missing"
                    .into()
            }
            Self::MacElsewhere(_) => "leave `mac` out: it is for interfaces".into(),
            Self::QueueElsewhere(_) => "leave `queue` out: it is for CPUs".into(),
        }
    }
}

/// What to write instead of something that is no destination.
fn instead_of(text: &str, show: impl Fn(&str) -> String) -> String {
    if let Some((kind, name)) = text.split_once(':')
        && let Some(near) = nearest(kind, &KINDS)
        && near != kind
    {
        return format!("did you mean {}", show(&format!("{near}:{name}")));
    }
    if let Some(near) = nearest(text, &WORDS) {
        return format!("did you mean {}", show(near));
    }
    "the destinations are local, drop, reject, socket:…, interface:…, cpu:… and xsk:…".into()
}

/// What is wrong with a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// What was written is none.
    #[error("`{}` is not a MAC address", .0.escape_debug())]
    NotAMac(String),
    /// All zeros.
    #[error("no interface has the MAC address 00:00:00:00:00:00")]
    Zero,
    /// The address of a group.
    #[error("`{0}` is the MAC address of a group")]
    Group(String),
}

impl MacError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotAMac(_) => "write it as in 02:00:5e:10:00:01".into(),
            Self::Zero => "leave `mac` out to keep the one that frames have".into(),
            Self::Group(_) => "write that of one network card: its first byte is even".into(),
        }
    }
}
