//! Errors as users see them: what failed, and what to do next.

use std::fmt;

/// No such instance is loaded.
#[derive(Debug, thiserror::Error)]
#[error("instance {instance} is not loaded")]
pub struct NothingLoaded {
    /// The instance's name.
    pub instance: String,
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
