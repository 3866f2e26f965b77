//! What users of the command see: what it says, how it ends, and that a refusal changes nothing.

mod attached;
mod bed;
mod changes;
mod embedded;
mod explain;
mod explain_state;
mod failures;
mod flows;
mod help;
mod instance;
mod json;
mod lockout;
mod memory;
mod mistakes;
mod names;
mod pipes;
mod progress;
mod saved;
mod sets;
mod sources;
mod stats;
mod tables;
mod terms;
mod unsaid;
mod usage;
mod watch;
