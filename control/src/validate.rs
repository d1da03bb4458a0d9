//! `serin validate`: everything that is wrong with a directory, at once.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serin_config::Severity;
use serin_runtime::watch::read;

use crate::arguments::ValidateArguments;
use crate::paint::{complain, say};

pub(crate) fn validate(arguments: &ValidateArguments) -> Result<ExitCode> {
    let shown = arguments.directory.display();
    let interpreted = read(&arguments.directory).with_context(|| format!("cannot read {shown}"))?.interpreted;
    for problem in &interpreted.problems {
        complain(&problem.to_string());
    }
    let errors = interpreted.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        complain(&format!("{shown}: {errors} {}", if errors == 1 { "error" } else { "errors" }));
        return Ok(ExitCode::FAILURE);
    }
    let canaries: Vec<_> = interpreted.workloads.iter().map(|workload| workload.plan.canary.to_string()).collect();
    match canaries.as_slice() {
        [] => say(&format!("{shown}: nothing is wrong, but there is no Canary, so there is no traffic to serve")),
        canaries => say(&format!("{shown}: ready to run: {}", canaries.join(", "))),
    }
    Ok(ExitCode::SUCCESS)
}
