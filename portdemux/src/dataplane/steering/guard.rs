//! Of which interfaces all packets are decided about before their socket is looked up.

use anyhow::Result;

use crate::{
    instance::{Instance, InstancePaths, Writer, pinned},
    interface::{self, Interface},
};

/// Says anew of which interfaces all packets are decided about on their way in.
///
/// # Errors
///
/// The kernel does not list its interfaces.
pub fn guard(writer: &Writer) -> Result<()> {
    guard_without(writer, &[])
}

/// Whether what was last said of that still holds.
///
/// # Errors
///
/// The kernel does not list its interfaces.
pub fn is_guard_current(instance: &Instance) -> Result<bool> {
    if instance.maps.steering.netns().1 != interface::namespace()? {
        return Ok(true);
    }
    let present = interface::list()?;
    let attached = carriers(&instance.paths, &[], &present)?;
    Ok(instance
        .maps
        .steering
        .guards(&with_vlans(attached, &present)))
}

/// Guards all interfaces but those at some slots, before the program is taken off these: the packets of an interface
/// that is not guarded are decided about when a socket is looked up.
///
/// # Errors
///
/// The kernel does not list its interfaces.
pub fn guard_without(writer: &Writer, leaving: &[usize]) -> Result<()> {
    if writer.maps.steering.netns().1 != interface::namespace()? {
        // What is attached here matters nothing to the other namespace; what leaves may be there.
        if !leaving.is_empty() {
            writer.maps.steering.set_guarded(&[]);
        }
        return Ok(());
    }
    let present = interface::list()?;
    let attached = carriers(&writer.paths, leaving, &present)?;
    writer
        .maps
        .steering
        .set_guarded(&with_vlans(attached, &present));
    Ok(())
}

/// The interfaces that the program runs on, but for those at some slots.
fn carriers(paths: &InstancePaths, leaving: &[usize], present: &[Interface]) -> Result<Vec<u32>> {
    let attached = pinned::pinned(paths)?.into_iter();
    let attached = attached.filter(|link| !leaving.contains(&link.slot));
    Ok(attached
        .filter_map(|link| Some(link.carrier(present)?.index))
        .collect())
}

/// Adds the VLANs on interfaces: all that comes by a VLAN has come by the interface below, with a tag.
fn with_vlans(mut interfaces: Vec<u32>, present: &[Interface]) -> Vec<u32> {
    loop {
        let above = present.iter().find(|interface| {
            let is_in = |index: u32| interfaces.contains(&index);
            interface.vlan_of.is_some_and(is_in) && !is_in(interface.index)
        });
        let Some(above) = above else {
            return interfaces;
        };
        interfaces.push(above.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_found_however_deep_and_in_whatever_order_they_stand() {
        let interface = |index, vlan_of| Interface {
            index,
            name: format!("test{index}"),
            mtu: 1500,
            driver: None,
            mac: None,
            is_up: true,
            vlan_of,
            programs: Vec::new(),
        };
        // 5 is a VLAN of 9, which is one of 2; 7 and 8 belong to 3.
        let present = [
            interface(2, None),
            interface(3, None),
            interface(5, Some(9)),
            interface(7, Some(3)),
            interface(8, Some(7)),
            interface(9, Some(2)),
        ];
        assert_eq!(with_vlans(vec![2], &present), [2, 9, 5]);
        assert_eq!(with_vlans(vec![3], &present), [3, 7, 8]);
        assert_eq!(with_vlans(vec![7, 8], &present), [7, 8]);
        assert!(with_vlans(Vec::new(), &present).is_empty());
        // What is gone has no VLANs; another may have its number by then.
        assert_eq!(with_vlans(vec![4], &present), [4]);
    }
}
