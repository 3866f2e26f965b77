//! Who is in a set is changed.

use anyhow::Result;
use ipnet::IpNet;

use super::{Check, Control};
use crate::{
    members::{self, Changed, MemberCheck},
    rules::source::Becomes,
};

impl Control {
    /// Makes prefixes members of a set, or takes them out of it, all or none. Without a check, nothing is compiled
    /// that only it would look at.
    ///
    /// # Errors
    ///
    /// There is no such set, it cannot be changed so, or `check` objects; nothing was changed.
    pub fn change_set(
        &self,
        name: &str,
        prefixes: &[IpNet],
        becomes: Becomes,
        check: Option<Check<'_>>,
    ) -> Result<Changed> {
        let writer = self.open_to_change()?;
        let in_force = self.in_force(&writer)?;
        let wishes: Vec<(IpNet, Becomes)> =
            prefixes.iter().map(|&prefix| (prefix, becomes)).collect();
        let checked;
        let mut member_check: Option<MemberCheck<'_>> = None;
        if let Some(check) = check {
            checked = |new: &_| check(&writer, &[], new);
            member_check = Some(&checked);
        }
        members::change(&writer, &in_force, name, &wishes, member_check)
    }
}
