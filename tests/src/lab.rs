//! The topology that most tests use: a client and a server on one wire.

use std::net::IpAddr;

use anyhow::Result;

use crate::{
    frames::{CLIENT_MAC, CLIENT_V4, CLIENT_V6, SERVER_MAC, SERVER_V4, SERVER_V6},
    netns::Netns,
    raw::RawSocket,
    veth::{self, End, Offloads},
};

/// The name of the interface at either end of the wire.
pub const INTERFACE: &str = "wire0";

/// Two namespaces joined by a pair of interfaces. Addresses are those that [`crate::frames`] uses
/// unless told otherwise, so that a frame built without further ado is one for the server.
#[derive(Debug)]
pub struct Lab {
    /// Where requests come from.
    pub client: Netns,
    /// Where portdemux and the servers run.
    pub server: Netns,
}

impl Lab {
    /// A wire with an MTU of 1,500 and complete frames.
    ///
    /// # Errors
    ///
    /// If the kernel or the privileges do not allow it.
    pub fn new() -> Result<Self> {
        Self::with(1500, Offloads::Off)
    }

    /// A wire of the given kind.
    ///
    /// # Errors
    ///
    /// If the kernel or the privileges do not allow it.
    pub fn with(mtu: u32, offloads: Offloads) -> Result<Self> {
        let (client, server) = (Netns::new("client")?, Netns::new("server")?);
        let client_end = End {
            namespace: &client,
            name: INTERFACE,
            mac: CLIENT_MAC,
            addresses: vec![CLIENT_V4.into(), CLIENT_V6.into()],
        };
        let server_end = End {
            namespace: &server,
            name: INTERFACE,
            mac: SERVER_MAC,
            addresses: vec![SERVER_V4.into(), SERVER_V6.into()],
        };
        veth::connect(&client_end, &server_end, mtu, offloads)?;
        Ok(Self { client, server })
    }

    /// Gives the server one more address, which the client knows how to reach.
    ///
    /// # Errors
    ///
    /// With what `ip` said.
    pub fn add_server_address(&self, address: IpAddr) -> Result<()> {
        veth::add_address(&self.server, INTERFACE, address)?;
        veth::add_neighbour(&self.client, INTERFACE, address, SERVER_MAC)
    }

    /// The client's end of the wire, for frames byte by byte.
    ///
    /// # Errors
    ///
    /// If the socket cannot be opened.
    pub fn client_socket(&self) -> Result<RawSocket> {
        RawSocket::open(&self.client, INTERFACE)
    }

    /// The server's end of the wire, for frames byte by byte. In generic mode it sees only what
    /// passed; in native mode too.
    ///
    /// # Errors
    ///
    /// If the socket cannot be opened.
    pub fn server_socket(&self) -> Result<RawSocket> {
        RawSocket::open(&self.server, INTERFACE)
    }
}
