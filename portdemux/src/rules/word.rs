//! Keys whose value is one of a few words.

use portdemux_common::policy::{Fragments, Icmp};

use super::nearest::nearest;

/// What can be said in one word.
pub trait Word: Copy + Eq + 'static {
    /// Everything that can be said.
    const ALL: &'static [Self];

    /// The word for it, the same in rules files, on the command line and in JSON.
    fn name(self) -> &'static str;

    /// What a word says.
    #[must_use]
    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.name() == word)
    }
}

/// What to write instead of a word that says nothing: the nearest one, or which there are; `show` is
/// how they are written.
pub fn instead_of<W: Word>(word: &str, show: impl Fn(&str) -> String) -> String {
    let words: Vec<&str> = W::ALL.iter().map(|known| known.name()).collect();
    match nearest(word, &words) {
        Some(near) => format!("did you mean {}", show(near)),
        None => format!("write {}", choice::<W>(show)),
    }
}

/// The words there are, as in `"pass", "drop" or "reject"`.
pub fn choice<W: Word>(show: impl Fn(&str) -> String) -> String {
    let mut shown: Vec<String> = W::ALL.iter().map(|known| show(known.name())).collect();
    let last = shown.pop().unwrap_or_default();
    if shown.is_empty() {
        last
    } else {
        format!("{} or {last}", shown.join(", "))
    }
}

impl Word for Fragments {
    const ALL: &'static [Self] = &[Self::Pass, Self::Drop, Self::Track];

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Track => "track",
        }
    }
}

impl Word for Icmp {
    const ALL: &'static [Self] = &[Self::Pass, Self::Drop, Self::ErrorsOnly];

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::ErrorsOnly => "errors-only",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_otherwise_all_words_are_named() {
        let quoted = |word: &str| format!("\"{word}\"");
        assert_eq!(
            instead_of::<Fragments>("trak", quoted),
            "did you mean \"track\""
        );
        assert_eq!(
            instead_of::<Icmp>("yes", quoted),
            "write \"pass\", \"drop\" or \"errors-only\""
        );
        for &icmp in Icmp::ALL {
            assert_eq!(Icmp::of(icmp.name()), Some(icmp));
        }
    }
}
