//! Decides what a rollout does next. Nothing here acts: facts come in, a state and notices go out.
//!
//! ```text
//!   needs(plan, state) ─▶ facts wanted ─▶ (observed outside) ─▶ step(plan, state, facts) ─▶ new state + notices
//!                                                                desired(plan, state)     ─▶ what traffic should be
//! ```
//!
//! Two clocks drive it: the analysis interval calls [`step`], which alone advances; the guard calls [`brake`] and
//! [`narrow`], which never do. The phases and event texts are Flagger's (1.44).

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]

mod desired;
mod exact;
mod guard;
mod needs;
mod notice;
mod plan;
mod stakes;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod turn;

pub use desired::{Desired, Stage, desired};
pub use guard::{Brake, brake, enlist, narrow, report};
pub use needs::{Needs, needs, news};
pub use notice::{Level, Notice};
pub use plan::{Guard, GuardMode, Next, Plan, Steps, StepsError, Strategy, Target};
pub use stakes::{REPLICAS_MAX, Stakes};
pub use state::{Epoch, Judging, Phase, Revision, State, Trip, Weight, WeightOutOfRange};
pub use step::{Observation, Readiness, step};
pub use turn::Step;
