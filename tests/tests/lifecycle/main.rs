//! What becomes of an instance when programs are killed, pins are damaged, interfaces come and go.

mod bed;
mod boot;
mod damage;
mod destinations;
mod foreign;
mod interfaces;
mod killed_apply;
mod killed_attach;
mod killed_tracking;
mod modes;
mod privileges;
mod records;
mod replace;
mod strangers;
mod trial;
mod trial_killed;
mod undo;
mod waiting;
mod writers;
