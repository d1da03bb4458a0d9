//! `serin`: progressive delivery in the data path.

mod arguments;
mod assemble;
mod client;
mod crd;
mod doors;
mod get;
mod logs;
mod paint;
mod quick;
mod run;
mod tree;
mod validate;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

/// Small, fast, and steady under many threads; what the figures in the documents were measured with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Validate(arguments) => validate::validate(&arguments),
        Command::Get(arguments) => get::get(&arguments),
        Command::Wait(arguments) => wait::wait(&arguments),
        Command::Crd(arguments) => crd::crd(&arguments),
    };
    result.unwrap_or_else(|error| {
        paint::complain(&format!("serin: {error:#}"));
        ExitCode::FAILURE
    })
}
