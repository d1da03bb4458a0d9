//! The harness: backends that misbehave on request, a load that counts what users see, and a real `serin` process between them.
//!
//! Tests and the demo use the same parts. Nothing here knows Serin's inside: it speaks HTTP, writes files and sends signals,
//! so that what it finds is what a user would find.

pub mod backend;
pub mod client;
pub mod files;
pub mod load;
pub mod narrator;
pub mod outcome;
pub mod process;
pub mod report;
pub mod rollouts;
pub mod story;
pub mod wait;
