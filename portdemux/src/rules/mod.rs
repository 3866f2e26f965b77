//! The rules a user writes: file, validation, plan.
