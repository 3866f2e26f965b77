//! What an interface does to frames before a program sees them.

use anyhow::{Context as _, Result};
use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::TryStreamExt as _;

/// Features of an interface that hide something from an XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The card takes VLAN tags out of the frames it receives (`rxvlan`).
    pub strips_vlan: bool,
    /// The card joins received TCP segments (`lro`).
    pub large_receive: bool,
    /// The card joins received packets as the stack would (`rx-gro-hw`).
    pub hardware_gro: bool,
}

/// Asks which offloads of an interface are on.
///
/// # Errors
///
/// The kernel does not answer, or has no ethtool interface.
pub fn offloads(interface: &str) -> Result<Offloads> {
    super::block_on(async {
        let (connection, mut handle, _) = ethtool::new_connection()?;
        let connection = tokio::spawn(connection);
        let answer: Vec<_> = handle
            .feature()
            .get(Some(interface))
            .execute()
            .await?
            .try_collect()
            .await?;
        connection.abort();
        let mut offloads = Offloads::default();
        for attribute in answer.iter().flat_map(|message| &message.payload.nlas) {
            let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute else {
                continue;
            };
            for bit in bits.iter().filter(|bit| bit.value) {
                match bit.name.as_str() {
                    "rx-vlan-hw-parse" => offloads.strips_vlan = true,
                    "rx-lro" => offloads.large_receive = true,
                    "rx-gro-hw" => offloads.hardware_gro = true,
                    _ => {}
                }
            }
        }
        Ok(offloads)
    })
    .with_context(|| format!("ask for the offloads of {interface}"))
}
