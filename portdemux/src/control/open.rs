//! An instance is opened, after what was left of earlier commands is done.

use anyhow::Result;
use portdemux_common::ids::Generation;

use super::{Control, Event};
use crate::{
    change::{self, InForce, WrittenRules},
    confirm,
    dataplane::{
        destinations, links,
        tracking::{self, UNRESUMED},
    },
    error::NothingLoaded,
    instance::{AbiDirectory, Instance, Lock, Writer},
    maps::mapped::catching,
    records::Records,
    unconfirmed, upgrade,
};

impl Control {
    /// Opens the instance for reading.
    ///
    /// # Errors
    ///
    /// As [`Instance::open`].
    pub fn open(&self) -> Result<Instance> {
        Instance::open(&self.paths)
    }

    /// Reads the ruleset in force; a warning says if its text had to be rebuilt.
    ///
    /// # Errors
    ///
    /// As [`change::in_force`].
    pub fn in_force(&self, instance: &Instance) -> Result<InForce> {
        let in_force = change::in_force(instance)?;
        self.warn_of_loss(&in_force);
        Ok(in_force)
    }

    /// Reads the ruleset in force and its text; a warning says if the text had to be rebuilt.
    ///
    /// # Errors
    ///
    /// As [`change::written`].
    pub fn written(&self, instance: &Instance) -> Result<WrittenRules> {
        let written = change::written(instance)?;
        self.warn_of_loss(&written.in_force);
        Ok(written)
    }

    /// Takes the lock and opens the instance for a change.
    ///
    /// # Errors
    ///
    /// There is none, another writer does not end, or what was left of an earlier change cannot be done.
    pub fn open_to_change(&self) -> Result<Writer> {
        let writer = self.open_locked()?;
        self.settle(&writer)?;
        for destination in destinations::reconcile(&writer)? {
            self.events.tell(Event::Note(format!(
                "{destination} is there again and gets its packets"
            )));
        }
        Ok(writer)
    }

    /// Takes the lock and opens the instance for a change, and leaves what waits to be confirmed and what has returned as
    /// they are.
    ///
    /// # Errors
    ///
    /// As [`Self::open_to_change`].
    pub(crate) fn open_locked(&self) -> Result<Writer> {
        links::check_capabilities()?;
        let lock = self.paths.lock_within(self.patience)?;
        self.finish_upgrade(&lock)?;
        lock.refuse_half_removed()?;
        let writer = lock.open()?;
        self.resume(&writer);
        Ok(writer)
    }

    /// Takes the lock and opens the instance for a change, after making it if there is none. Says whether there was
    /// none.
    ///
    /// Whoever fails then removes it: nothing was there before, nothing stays.
    ///
    /// # Errors
    ///
    /// As [`Self::open_to_change`], or it cannot be made.
    pub fn open_or_create(&self) -> Result<(Writer, bool)> {
        links::check_capabilities()?;
        let lock = self.paths.lock_within(self.patience)?;
        let is_new = !self.paths.exists()?;
        let opened = catching(|| self.open_here_or_create(&lock, is_new));
        if opened.is_err() && is_new {
            // Why it failed is what matters.
            let _: Result<()> = lock.remove();
        }
        Ok((opened?, is_new))
    }

    fn open_here_or_create(&self, lock: &Lock, is_new: bool) -> Result<Writer> {
        if is_new {
            // What outlived its instance is not this one's.
            let records = Records::new(self.paths.records());
            records.sweep(&[], lock)?;
            records.sweep_changes(Generation::default(), lock)?;
            unconfirmed::discard(lock)?;
        }
        self.take_over(lock)?;
        let writer = lock.open_or_create()?;
        self.resume(&writer);
        self.settle(&writer)?;
        Ok(writer)
    }

    /// Opens the instance for a change, after making it if there is none and `is_enough` says that the change needs no
    /// interface that a program is attached to.
    pub(crate) fn open_to_change_or_create(
        &self,
        is_enough: impl FnOnce() -> bool,
    ) -> Result<(Writer, bool)> {
        if !self.paths.exists()? && is_enough() {
            return self.open_or_create();
        }
        Ok((self.open_to_change()?, false))
    }

    /// Takes an instance over that an older version made; does what is left of an upgrade that was begun.
    fn take_over(&self, lock: &Lock) -> Result<()> {
        if lock.paths.as_found()?.directory == AbiDirectory::Own {
            return self.finish_upgrade(lock);
        }
        if let Some(upgraded) = upgrade::upgrade(lock)? {
            let instance = lock.paths.instance.clone();
            self.events.tell(Event::Upgraded(instance, upgraded));
        }
        Ok(())
    }

    /// Makes the instance one of this binary, under traffic; says whether there is one.
    ///
    /// # Errors
    ///
    /// As [`upgrade::upgrade`].
    pub fn upgrade(&self) -> Result<bool> {
        if !self.paths.is_loaded()? {
            let error = self.paths.nothing_loaded();
            return if error.is::<NothingLoaded>() {
                Ok(false)
            } else {
                Err(error)
            };
        }
        links::check_capabilities()?;
        let _verifying = self.events.verifying();
        let lock = self.paths.lock_within(self.patience)?;
        let Some(upgraded) = upgrade::upgrade(&lock)? else {
            return Ok(false);
        };
        let instance = self.paths.instance.clone();
        self.events.tell(Event::Upgraded(instance, upgraded));
        Ok(true)
    }

    /// Does what is left of an upgrade that was begun.
    fn finish_upgrade(&self, lock: &Lock) -> Result<()> {
        if let Some(from) = upgrade::finish(lock)? {
            self.events.tell(Event::Note(format!(
                "the upgrade of instance {} from ABI {from} was interrupted; it is done",
                lock.paths.instance
            )));
        }
        Ok(())
    }

    /// Finishes or takes back a change of what tracks flows that was interrupted. Whatever else is done can be done
    /// without.
    fn resume(&self, writer: &Writer) {
        if let Err(error) = catching(|| tracking::resume(writer)) {
            self.events.warn_of(UNRESUMED, &error);
        }
    }

    /// Undoes a change that should have been undone already.
    fn settle(&self, writer: &Writer) -> Result<()> {
        if unconfirmed::is_hopeless(writer)? {
            // Whoever brings a whole file may go on, and is told why others may not.
            return Ok(());
        }
        if let Some(undone) = confirm::settle(writer)? {
            self.events.warn(
                format!(
                    "generation {} was not confirmed in time: the rules before it are in force again, as \
                     generation {}",
                    undone.generation, undone.by.0
                ),
                None,
            );
            for (what, help) in undone.warnings {
                self.events.warn(what, Some(help));
            }
        }
        Ok(())
    }

    fn warn_of_loss(&self, in_force: &InForce) {
        if let Some(why) = &in_force.lost {
            self.events.warn(
                format!(
                    "the text of the ruleset in force is lost ({why}); it was rebuilt from the kernel without comments \
                     and without sets that no rule names"
                ),
                Some("apply the rules file again".into()),
            );
        }
        if let Some(why) = &in_force.changes_lost {
            self.events.warn(
                format!(
                    "the record of changes of sets is lost ({why}): who is in them is read from the kernel"
                ),
                Some("the next change writes it down again".into()),
            );
        }
    }
}
