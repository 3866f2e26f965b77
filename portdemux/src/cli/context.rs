//! What every verb and noun works with: an instance, and where to say what comes of it.

use std::ops::Deref;

use anyhow::Result;

use super::{output::Output, told};
use crate::{
    attached,
    control::{Control, Event},
    error::NothingLoaded,
    instance::{AbiDirectory, InstancePaths},
};

/// What every verb and noun works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) control: Control,
    /// Where to print.
    pub(super) output: Output,
}

impl Deref for Context {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Context {
    /// Runs a noun on the instance as it is, also where an older version made it; once more if it was taken over
    /// meanwhile, as it may have looked for things where they are no more.
    pub(super) fn read(&self, noun: impl Fn(&Self) -> Result<()>) -> Result<()> {
        // Where that cannot be said, the noun says why.
        let as_found = || self.paths.as_found().unwrap_or_else(|_| self.paths.clone());
        let mut paths = as_found();
        if paths.directory != AbiDirectory::Own {
            self.output.hold();
        }
        loop {
            let result = noun(&self.at(paths.clone()));
            let now = as_found();
            if now.directory == paths.directory {
                return result;
            }
            self.output.discard();
            paths = now;
        }
    }

    /// The context of an instance that lies elsewhere.
    pub(super) fn at(&self, paths: InstancePaths) -> Self {
        let control = Control {
            paths,
            ..self.control.clone()
        };
        Self {
            control,
            output: self.output.clone(),
        }
    }

    /// Says what happened meanwhile.
    pub(super) fn tell(&self, event: Event) {
        told::tell(&self.output, event);
    }

    /// What is in force now, for whoever was not told what a verb did.
    pub(super) fn what_is_in_force(&self) -> String {
        let look = || -> Result<String> {
            let instance = match self.open() {
                Err(error) if error.is::<NothingLoaded>() => return Ok(format!("{error}")),
                opened => opened?,
            };
            let interfaces = attached::interfaces(&instance)?;
            let attached = interfaces
                .iter()
                .filter(|interface| interface.state.is_attached());
            let names: Vec<&str> = attached
                .map(|interface| {
                    interface
                        .renamed
                        .as_ref()
                        .unwrap_or(&interface.name)
                        .as_str()
                })
                .collect();
            let attached = match &names[..] {
                [] => "attached to no interface".into(),
                names => format!("attached to {}", names.join(", ")),
            };
            let generation = instance.maps.generation().0;
            Ok(format!("generation {generation} is in force, {attached}"))
        };
        let found =
            look().unwrap_or_else(|error| format!("what is in force is not known: {error:#}"));
        format!("{found} ({} status)", self.command())
    }

    /// The options that say where this instance lies.
    pub(super) fn words(&self) -> Vec<String> {
        let InstancePaths {
            instance,
            bpffs,
            state,
            directory: _,
        } = &self.paths;
        let mut words = vec!["--instance".into(), instance.to_string()];
        for (option, path) in [("--bpffs", bpffs), ("--state-dir", state)] {
            words.extend([option.into(), path.display().to_string()]);
        }
        words
    }
}
