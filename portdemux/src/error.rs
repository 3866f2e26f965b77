//! Errors as users see them: what failed, and what to do next.

use std::fmt;

/// No such instance is loaded.
#[derive(Debug, thiserror::Error)]
#[error("instance {instance} is not loaded")]
pub struct NothingLoaded {
    /// The instance's name.
    pub instance: String,
}

/// The command for an instance, as a user writes it: typed literally, what a message names means this one.
pub(crate) fn command(instance: &str) -> String {
    match instance {
        "default" => "portdemux".into(),
        name => format!("portdemux --instance {name}"),
    }
}

/// An instance whose removal was interrupted: it is no more, and its programs can still be on interfaces.
#[derive(Debug, thiserror::Error)]
#[error(
    "the removal of instance {instance} was interrupted: {}",
    still_on(.interfaces)
)]
pub struct HalfRemoved {
    /// The instance's name.
    pub instance: String,
    /// The interfaces of this network namespace that its programs still run on.
    pub interfaces: Vec<String>,
}

fn still_on(interfaces: &[String]) -> String {
    if interfaces.is_empty() {
        "something of it is left".into()
    } else {
        format!("its program still runs on {}", interfaces.join(", "))
    }
}

/// What to do about an error, as a link in its chain of causes.
#[derive(Debug)]
pub struct Advice(pub String);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds advice to an error.
pub trait Help<T> {
    /// Says what to do about the error.
    fn help(self, advice: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Help<T> for Result<T, E> {
    fn help(self, advice: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Advice(advice())))
    }
}

/// What a user should know although a command goes on, and what to do about it.
pub type Warning = (String, String);

/// What becomes of a change if something cannot be had that its rules name.
#[derive(Debug)]
pub enum Unavailable<'w> {
    /// It is not made.
    Refused,
    /// It is made all the same: packets fall back as the rules say, and a warning says why.
    Missing(&'w mut Vec<Warning>),
}

impl Unavailable<'_> {
    /// Something that was to be had.
    ///
    /// # Errors
    ///
    /// It cannot be had, and the change is not made without.
    pub fn judge<T>(&mut self, had: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match (had, self) {
            (Ok(had), _) => Ok(Some(had)),
            (Err(error), Self::Refused) => Err(error),
            (Err(error), Self::Missing(warnings)) => {
                let help = "its packets fall back as the rules say; the next change tries again";
                warnings.push((format!("{error:#}"), help.into()));
                Ok(None)
            }
        }
    }
}

/// What went wrong, in one line, and what to do about it.
#[must_use]
pub fn told(error: &anyhow::Error) -> (String, Option<String>) {
    let mut advice = error
        .downcast_ref::<Advice>()
        .map(|advice| advice.0.clone());
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if advice.as_ref() != Some(&cause) && causes.last() != Some(&cause) {
            causes.push(cause);
        }
    }
    if let Some(NothingLoaded { instance }) = error.downcast_ref() {
        advice.get_or_insert_with(|| format!("{} attach IFACE loads it", command(instance)));
    }
    (causes.join(": "), advice)
}
