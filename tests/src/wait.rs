//! Waits for something that another process does, by asking again and again until a deadline.
//!
//! Inside one process, await the event itself. This is for what can only be seen from outside: a port, an admin page, an exit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to wait between two questions: short beside anything awaited here, long beside the cost of asking.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Asks until the answer is `Some`, and returns what was in it.
///
/// # Errors
/// With `what` in its sentence when `within` has passed; an error of `ask` itself ends the wait at once.
pub async fn until<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {within:?}");
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
