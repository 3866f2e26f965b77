//! The programs that hand packets to sockets, and which sockets these are.

mod features;
mod guard;
pub mod joining;
mod links;

pub use features::Features;
pub use guard::{guard, guard_without, is_guard_current};
pub use links::{
    Followed, LOOK, begin, end, followed, is_steering, load, refresh, register, unregister,
};
pub(super) use links::{check, renew};
