//! One way for every change: features prepare, commit and retire, or roll back.

use anyhow::Result;

use crate::{
    error::{Unavailable, Warning},
    maps::mapped::catching,
};

/// A part of a change, with its way back.
pub(crate) trait Feature {
    /// Makes what is to hold, beside what holds.
    ///
    /// # Errors
    ///
    /// It cannot be had, and the change is not made without.
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        Ok(())
    }

    /// Makes it hold.
    ///
    /// # Errors
    ///
    /// It does not hold.
    fn commit(&mut self) -> Result<()> {
        Ok(())
    }

    /// Takes back what [`Self::prepare`] and [`Self::commit`] did, however far they came. What stays and does no
    /// harm, the next change takes away.
    ///
    /// # Errors
    ///
    /// It holds all the same, and needs what the features before it made.
    fn roll_back(&mut self) -> Result<()> {
        Ok(())
    }

    /// Takes away what only held before. Nothing is rolled back any more.
    ///
    /// # Errors
    ///
    /// Says what is still there.
    fn retire(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Runs features in their order; from the last to the first they retire, or roll back where one fails. Returns what is
/// still there that should have retired.
///
/// # Errors
///
/// A feature failed to prepare or to commit. All that began are rolled back, or the error says what stays.
pub(crate) fn run(
    features: &mut [&mut dyn Feature],
    unavailable: &mut Unavailable<'_>,
) -> Result<Vec<Warning>> {
    let mut begun = 0;
    let done = catching(|| {
        for feature in &mut *features {
            begun += 1;
            feature.prepare(unavailable)?;
        }
        features.iter_mut().try_for_each(|feature| feature.commit())
    });
    if let Err(error) = done {
        return Err(roll_back(&mut features[..begun], error));
    }
    let still_there = features.iter_mut().rev().filter_map(|feature| {
        let error = catching(|| feature.retire()).err()?;
        let help = "the rules are in force all the same; the next change tries it again";
        Some((format!("{error:#}"), help.into()))
    });
    Ok(still_there.collect())
}

/// Takes something away that does no harm if it stays.
pub(crate) fn if_possible(work: impl FnOnce() -> Result<()>) {
    let _: Result<()> = catching(work);
}

fn roll_back(begun: &mut [&mut dyn Feature], error: anyhow::Error) -> anyhow::Error {
    let mut begun = begun.iter_mut().rev();
    match begun.try_for_each(|feature| catching(|| feature.roll_back())) {
        Ok(()) => error,
        Err(stays) => error.context(format!("{stays:#}")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::ensure;

    use super::*;

    /// Writes down what it is asked to do, and fails at one step.
    struct Noted<'a> {
        name: char,
        fails: &'a str,
        log: &'a RefCell<Vec<String>>,
    }

    impl Noted<'_> {
        fn note(&self, step: &str) -> Result<()> {
            let step = format!("{step} {}", self.name);
            let fails = self.fails.split(", ").any(|fails| fails == step);
            self.log.borrow_mut().push(step);
            ensure!(!fails, "{} fails", self.name);
            Ok(())
        }
    }

    impl Feature for Noted<'_> {
        fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
            self.note("prepare")
        }

        fn commit(&mut self) -> Result<()> {
            self.note("commit")
        }

        fn roll_back(&mut self) -> Result<()> {
            self.note("roll back")
        }

        fn retire(&mut self) -> Result<()> {
            self.note("retire")
        }
    }

    /// What two features are asked to do where some steps fail, and what comes of it.
    fn course(fails: &str) -> (String, Result<Vec<Warning>>) {
        let log = RefCell::default();
        let noted = |name| Noted {
            name,
            fails,
            log: &log,
        };
        let (mut a, mut b) = (noted('a'), noted('b'));
        let result = run(&mut [&mut a, &mut b], &mut Unavailable::Refused);
        (log.take().join(", "), result)
    }

    #[test]
    fn features_are_done_in_order_and_undone_in_reverse() {
        let all = "prepare a, prepare b, commit a, commit b, retire b, retire a";
        let (steps, result) = course("");
        assert_eq!(steps, all);
        assert!(result.unwrap().is_empty());
        for (fails, done) in [
            ("prepare a", "prepare a, roll back a"),
            (
                "prepare b",
                "prepare a, prepare b, roll back b, roll back a",
            ),
            (
                "commit a",
                "prepare a, prepare b, commit a, roll back b, roll back a",
            ),
            (
                "commit b",
                "prepare a, prepare b, commit a, commit b, roll back b, roll back a",
            ),
        ] {
            let (steps, result) = course(fails);
            assert_eq!(steps, done);
            let name = fails.chars().last().unwrap();
            assert_eq!(
                format!("{:#}", result.unwrap_err()),
                format!("{name} fails")
            );
        }
    }

    #[test]
    fn what_stands_on_a_feature_that_stays_is_not_taken_from_under_it() {
        let (steps, result) = course("commit b, roll back b");
        assert!(steps.ends_with("commit b, roll back b"), "{steps}");
        assert_eq!(format!("{:#}", result.unwrap_err()), "b fails: b fails");
    }

    #[test]
    fn what_does_not_retire_is_said_and_keeps_nothing_from_it() {
        let (steps, result) = course("retire a, retire b");
        assert!(steps.ends_with("retire b, retire a"), "{steps}");
        let warnings = result.unwrap().into_iter().map(|(what, _)| what);
        assert_eq!(warnings.collect::<Vec<_>>(), ["b fails", "a fails"]);
    }
}
