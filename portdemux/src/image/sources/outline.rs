//! What lists of sources are made of, and what their sets are called.
//!
//! It stands behind the classes of a table, for the control plane alone: if the text of the rules is lost, they are
//! rebuilt with the sets that they name.

use serde::{Deserialize, Serialize};

use super::{
    ControlWord,
    store::{NoRoom, Store},
};
use crate::rules::{Ruleset, lists::Atom};

/// What the lists of a ruleset are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// By number, the lists that are not made up of others: the name of the set that one is, if it is one.
    pub atoms: Vec<Option<String>>,
    /// What the others are made up of, whose numbers follow.
    pub unions: Vec<Vec<u16>>,
}

impl Outline {
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let lists = ruleset.lists();
        let name = |atom: &Atom| match atom {
            Atom::Set(offset) => ruleset.sets().get(*offset).map(|set| set.name.clone()),
            Atom::Own(_) => None,
        };
        Self {
            atoms: lists.atoms().iter().map(name).collect(),
            unions: lists.unions().to_vec(),
        }
    }

    /// Writes it into a table that is being built.
    pub(super) fn write(&self, words: &mut Vec<u64>) -> Result<(), NoRoom> {
        let bytes = serde_json::to_vec(self).expect("invariant: names and numbers can be written");
        let mut packed = vec![bytes.len() as u64];
        packed.extend(bytes.chunks(size_of::<u64>()).map(|chunk| {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        }));
        let offset = words.take(packed.len())?;
        words.write(offset, &packed);
        words[ControlWord::Outline as usize] = offset.into();
        Ok(())
    }

    /// That of a table; nothing if there is none or it makes no sense.
    pub(in crate::image) fn read(words: &[u64]) -> Option<Self> {
        let offset = usize::try_from(*words.get(ControlWord::Outline as usize)?).ok()?;
        let (length, rest) = words.get(offset..).filter(|_| offset != 0)?.split_first()?;
        let length = usize::try_from(*length).ok()?;
        let words = rest.get(..length.div_ceil(size_of::<u64>()))?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        serde_json::from_slice(&bytes[..length]).ok()
    }
}
