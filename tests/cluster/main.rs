//! Serin in a real cluster: a real API server with its controllers, three replicas of Serin, pods that are local processes, and
//! users who notice every failed request.
#![allow(clippy::print_stdout, reason = "a test tells what users saw")]

mod counts;
mod failures;
mod fleet;
mod init;
mod outages;
mod parity;
mod partition;
mod rollouts;
mod shop;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serin_plane::{Images, Options, Plane, Suite};
use serin_tests::process::binary;

fn main() -> ExitCode {
    let mut suite = Suite::enter();
    parity::tests(&mut suite);
    init::tests(&mut suite);
    rollouts::tests(&mut suite);
    failures::tests(&mut suite);
    counts::tests(&mut suite);
    partition::tests(&mut suite);
    outages::tests(&mut suite);
    suite.run(options)
}

/// Flagger's own definitions, and Serin's beside them, as a cluster has them in which Flagger was installed before.
fn options() -> Result<Options> {
    let mut images = Images::default();
    images.set("serin", [path(binary()?)?]);
    images.set("backend", [path(binary()?.with_file_name("backend"))?]);
    let own = include_str!("../../charts/serin/crds/serin.dev.yaml").to_owned();
    Ok(Options { crds: vec![Plane::flagger_crds()?, own], images, ..Options::default() })
}

fn path(program: PathBuf) -> Result<String> {
    program.into_os_string().into_string().ok().context("the path of a program is not text")
}
