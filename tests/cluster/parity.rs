//! The API server in memory, on which unit tests rest, answers as the real one does.

use anyhow::{Result, ensure};
use serin_plane::in_process::parity::{self, Outcome};
use serin_plane::{Namespace, Suite};

pub(crate) fn tests(suite: &mut Suite) {
    suite.test("the_api_server_in_memory_answers_as_the_real_one_does", answers_are_the_same);
}

async fn answers_are_the_same(namespace: Namespace) -> Result<()> {
    let outcomes = parity::run(&namespace.plane().client(), namespace.name()).await;
    let differences: Vec<_> = outcomes.iter().flat_map(Outcome::differences).collect();
    println!("{} calls, {} differences", outcomes.len(), differences.len());
    ensure!(outcomes.len() > 30 && differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
