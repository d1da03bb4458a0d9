//! Runs tests on one plane, each in a namespace of its own, with the command line of any Rust test.
//!
//! The plane's process has to be in its network namespace before it has threads, and Rust's own test harness has some before the first
//! test. So a test target on a plane says `harness = false` and has this as its `main`:
//!
//! ```no_run
//! # use serin_plane::{Options, Suite, Namespace};
//! fn main() -> std::process::ExitCode {
//!     let mut suite = Suite::enter();
//!     suite.test("a_deployment_becomes_ready", async |shop: Namespace| {
//!         shop.apply_yaml("…").await?;
//!         shop.until_rolled_out("web", std::time::Duration::from_secs(30)).await?;
//!         Ok(())
//!     });
//!     suite.run(|| Ok(Options::default()))
//! }
//! ```

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::RwLock;
use tokio::time::timeout;

use crate::namespace::Namespace;
use crate::plane::{Options, Plane};

/// No test of a cluster needs longer; one that hangs is to be told about with everything that is known.
const TEST_WITHIN: Duration = Duration::from_secs(420);

/// Looking around takes a fraction of a second, unless the plane itself is what failed.
const DUMP_WITHIN: Duration = Duration::from_secs(20);

/// Tests that run at the same time, unless the command line says otherwise. Each has a few processes and mostly waits for intervals
/// to pass.
const TESTS_AT_ONCE: usize = 4;

/// Tests, collected and then run.
pub struct Suite {
    arguments: Arguments,
    runtime: Runtime,
    stage: Arc<Stage>,
    trials: Vec<Trial>,
}

/// What all tests stand on.
#[derive(Default)]
struct Stage {
    plane: OnceLock<Arc<Plane>>,
    /// Held for writing by a test that takes away what others need.
    shared: RwLock<()>,
}

impl Suite {
    /// Takes this process into a network namespace of its own. To be called first in `main`.
    ///
    /// If that is not possible, it says why and ends the process.
    #[must_use]
    pub fn enter() -> Self {
        let entered = Plane::enter()
            .and_then(|()| Builder::new_multi_thread().enable_all().build().context("starting a runtime"));
        match entered {
            Ok(runtime) => {
                let mut arguments = Arguments::from_args();
                // These tests wait more than they work.
                arguments.test_threads.get_or_insert(TESTS_AT_ONCE);
                Self { arguments, runtime, stage: Arc::default(), trials: Vec::new() }
            }
            Err(error) => {
                say(&format!("no test can run: {error:#}"));
                std::process::exit(101);
            }
        }
    }

    /// Adds a test. It gets a namespace, and shares the plane with others that run at the same time.
    pub fn test<T>(&mut self, name: &str, test: T)
    where
        T: AsyncFnOnce(Namespace) -> Result<()> + Send + 'static,
    {
        self.add(name, test, false);
    }

    /// Adds a test that has the plane for itself, because it takes away what others need: the API server, for one.
    pub fn test_alone<T>(&mut self, name: &str, test: T)
    where
        T: AsyncFnOnce(Namespace) -> Result<()> + Send + 'static,
    {
        self.add(name, test, true);
    }

    fn add<T>(&mut self, name: &str, test: T, alone: bool)
    where
        T: AsyncFnOnce(Namespace) -> Result<()> + Send + 'static,
    {
        let (stage, runtime) = (Arc::clone(&self.stage), self.runtime.handle().clone());
        self.trials.push(Trial::test(name, move || {
            let tested = runtime.block_on(async {
                if alone {
                    let _alone = stage.shared.write().await;
                    stage.run(test, true).await
                } else {
                    let _shared = stage.shared.read().await;
                    stage.run(test, false).await
                }
            });
            tested.map_err(|error| Failed::from(format!("{error:#}")))
        }));
    }

    /// Starts a plane, runs the tests that the command line asks for, and takes the plane apart.
    pub fn run(self, options: impl FnOnce() -> Result<Options>) -> ExitCode {
        let Self { arguments, runtime, stage, trials } = self;
        if arguments.list || trials.iter().all(|trial| arguments.is_filtered_out(trial)) {
            return libtest_mimic::run(&arguments, trials).exit_code();
        }
        let started = options().and_then(|options| runtime.block_on(start(options)));
        let plane = match started {
            Ok(plane) => stage.plane.get_or_init(|| plane),
            Err(error) => {
                say(&format!("the plane did not start: {error:#}"));
                return ExitCode::from(101);
            }
        };
        let code = libtest_mimic::run(&arguments, trials).exit_code();
        runtime.block_on(plane.stop());
        code
    }
}

async fn start(options: Options) -> Result<Arc<Plane>> {
    let plane = Plane::start(options).await?;
    say(&format!("the plane is up: {}; logs in {}", plane.times(), plane.folder().display()));
    Ok(plane)
}

impl Stage {
    async fn run<T>(&self, test: T, alone: bool) -> Result<()>
    where
        T: AsyncFnOnce(Namespace) -> Result<()>,
    {
        let plane = self.plane.get().expect("it was started before the tests");
        let namespace = plane.namespace("test").await?;
        let tested = match timeout(TEST_WITHIN, test(namespace.clone())).await {
            Ok(tested) => tested,
            Err(_) => Err(anyhow!("the test did not end within {TEST_WITHIN:?}")),
        };
        // A test that fails half-way has not given back what it took, and the others need it; so does the dump.
        let whole = if alone { plane.start_api_server().await } else { Ok(()) };
        if tested.is_err() {
            let told = timeout(DUMP_WITHIN, namespace.dump()).await;
            say(told.as_deref().unwrap_or("the API server did not answer in time to tell more"));
        }
        let closed = namespace.close().await;
        tested.and(whole).and(closed)
    }
}

/// The runner captures nothing, so this appears among its lines.
fn say(text: &str) {
    let _said = writeln!(std::io::stderr(), "{text}");
}
