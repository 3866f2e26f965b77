//! The names of users.

use std::{collections::HashMap, path::Path};

use crate::bounded;

/// The users of this host, as `/etc/passwd` lists them.
#[derive(Clone, Debug, Default)]
pub struct Users(HashMap<u32, String>);

impl Users {
    /// Reads the list; nobody has a name if it is not there.
    #[must_use]
    pub fn read() -> Self {
        Self::parse(&bounded::bytes(Path::new("/etc/passwd")).unwrap_or_default())
    }

    /// The name of a user, if the list has it.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    fn parse(file: &[u8]) -> Self {
        let mut users = HashMap::new();
        for line in String::from_utf8_lossy(file).lines() {
            let mut fields = line.split(':');
            let (name, _, id) = (fields.next(), fields.next(), fields.next());
            if let (Some(name), Some(Ok(id))) = (name, id.map(str::parse)) {
                // Of several with one number the first is the one that programs show.
                users.entry(id).or_insert_with(|| name.to_owned());
            }
        }
        Self(users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_first_name_of_their_number() {
        let users = Users::parse(
            b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n\n# none\nweb:x:33:33::/:/bin/false\nodd:x:no\n",
        );
        assert_eq!(users.name(0), Some("root"));
        assert_eq!(users.name(33), Some("web"));
        assert_eq!(users.name(34), None);
    }
}
