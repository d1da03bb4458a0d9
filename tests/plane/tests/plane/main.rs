//! Shows the plane on the real thing: what a cluster does with pods, and what a test can do to them.
//!
//! This program is also what some of the pods run: with a word of [`programs`] as its first argument it becomes one.

mod configuration;
mod lifecycle;
mod objects;
mod outages;
mod partitions;
mod probes;
mod programs;
mod workloads;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serin_plane::{Namespace, NodeSpec, Options, Plane, Suite};

fn main() -> ExitCode {
    if let Some(code) = programs::become_one() {
        return code;
    }
    let mut suite = Suite::enter();
    suite.test("a_deployment_becomes_ready_and_serves_behind_its_service", workloads::serves);
    suite.test("a_new_version_rolls_out_and_the_old_pods_go", workloads::rolls_out);
    suite.test("a_daemon_set_runs_on_each_node_and_is_parked_by_a_selector", workloads::daemon_set);
    suite.test("a_job_runs_its_init_containers_in_order_and_succeeds", workloads::job);
    suite.test("a_canary_of_flagger_can_be_made_and_owns_what_it_is_told_to_own", workloads::flagger);
    suite.test("a_crash_loop_is_told_with_its_restarts_and_last_state", lifecycle::crash_loop);
    suite.test("an_image_that_nobody_knows_is_told_and_started_once_it_is_known", lifecycle::unknown_image);
    suite.test("a_deleted_pod_serves_while_it_terminates_until_its_end", lifecycle::serves_to_the_end);
    suite.test("a_pod_that_ignores_sigterm_is_killed_after_its_grace", lifecycle::ignores_sigterm);
    suite.test("a_killed_program_is_started_again", lifecycle::killed);
    suite.test("a_pod_that_is_not_ready_any_more_leaves_its_service", probes::readiness);
    suite.test("a_failed_liveness_probe_restarts_the_container", probes::liveness);
    suite.test("a_startup_probe_holds_the_others_back", probes::startup);
    suite.test("configuration_arrives_in_variables_and_files", configuration::arrives);
    suite.test("a_pod_waits_for_its_configuration", configuration::waits);
    suite.test("a_pod_talks_to_the_api_server_as_its_service_account", configuration::account);
    suite.test("a_pod_in_its_own_network_is_cut_off_silently_and_heals", partitions::from_all);
    suite.test("a_pod_is_cut_off_from_the_api_server_alone", partitions::from_api);
    suite.test("two_pods_are_cut_off_from_each_other", partitions::from_peers);
    suite.test_alone("pods_run_on_while_the_api_server_is_dead", outages::killed);
    suite.test_alone("pods_run_on_while_the_api_server_is_frozen", outages::frozen);
    suite.run(options)
}

fn options() -> Result<Options> {
    let mut options = Options { crds: vec![Plane::flagger_crds()?], ..Options::default() };
    options.nodes.push(NodeSpec::named("node-1").with_label("disk", "ssd"));
    options.images.set("backend", [beside("backend")?]);
    options.images.set("sh", ["sh", "-c"]);
    let ourselves = std::env::current_exe().context("finding this program's own place")?.display().to_string();
    options.images.set("api-client", [&*ourselves, programs::API_CLIENT]);
    options.images.set("dialler", [&*ourselves, programs::DIALLER]);
    Ok(options)
}

/// A program of the harness. Tests are in target/<profile>/deps, programs one above.
fn beside(name: &str) -> Result<String> {
    let here = std::env::current_exe().context("finding this program's own place")?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    let found = found.with_context(|| format!("{name} is not built: run `cargo build -p serin-tests` first"))?;
    Ok(found.display().to_string())
}

/// The single pod with these labels that is not being deleted, as soon as there is one.
async fn the_pod(namespace: &Namespace, labels: &str) -> Result<String> {
    namespace
        .until(&format!("there is not one pod with {labels}"), objects::SOON, async || {
            let pods = namespace.pods(labels).await?;
            let mut live = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            Ok(live.next().filter(|_| live.next().is_none()).and_then(|pod| pod.metadata.name))
        })
        .await
}

/// Waits until the first container of a pod has written a text, and returns all that it wrote.
async fn wrote(namespace: &Namespace, pod: &str, text: &str) -> Result<String> {
    let called = format!("{}/{pod}", namespace.name());
    namespace
        .until(&format!("{pod} has not written {text:?}"), objects::SOON, async || {
            Ok(namespace.plane().node().log(&called).ok().filter(|log| log.contains(text)))
        })
        .await
}
