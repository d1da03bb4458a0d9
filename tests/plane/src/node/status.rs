//! What a pod's status says, given what its containers do. Follows kubelet's `generateAPIPodStatus`.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::views::{Ended, State, View, Views};
use crate::network;

/// The status of a pod that has this address and was taken on at that time. Conditions that did not change since `previous` keep
/// their time.
pub(super) fn status(
    pod: &Pod,
    address: Ipv4Addr,
    taken_on: Timestamp,
    views: &Views,
    previous: &[PodCondition],
    now: Timestamp,
) -> PodStatus {
    let phase = phase(views);
    let condition = |name: &str, holds: Result<(), (&str, String)>| condition(name, holds, previous, now);
    let initialised = match views.init.iter().find(|view| !is_initialised(view)) {
        None => Ok(()),
        Some(view) => Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", view.name))),
    };
    let containers = containers_ready(views, phase);
    let ready = containers.clone().and_then(|()| gates_open(pod));
    PodStatus {
        phase: Some(phase.into()),
        host_ip: Some(network::NODE.to_string()),
        host_ips: Some(vec![HostIP { ip: network::NODE.to_string() }]),
        pod_ip: Some(address.to_string()),
        pod_ips: Some(vec![PodIP { ip: address.to_string() }]),
        start_time: Some(Time(taken_on)),
        conditions: Some(vec![
            condition("PodScheduled", Ok(())),
            condition("Initialized", initialised),
            condition("ContainersReady", containers),
            condition("Ready", ready),
        ]),
        init_container_statuses: (!views.init.is_empty()).then(|| views.init.iter().map(container_status).collect()),
        container_statuses: Some(views.main.iter().map(container_status).collect()),
        ..PodStatus::default()
    }
}

fn is_initialised(view: &View) -> bool {
    if view.sidecar { view.started } else { view.outcome() == Some(0) }
}

fn phase(views: &Views) -> &'static str {
    let outcomes: Vec<_> = views.main.iter().map(View::outcome).collect();
    if views.init.iter().any(|view| view.outcome().is_some_and(|code| code != 0) && !view.sidecar) {
        "Failed"
    } else if outcomes.iter().all(|outcome| *outcome == Some(0)) {
        "Succeeded"
    } else if outcomes.iter().all(Option::is_some) {
        "Failed"
    } else if views.main.iter().all(View::is_new) {
        "Pending"
    } else {
        "Running"
    }
}

type Holds = Result<(), (&'static str, String)>;

fn containers_ready(views: &Views, phase: &str) -> Holds {
    if phase == "Succeeded" {
        return Err(("PodCompleted", String::new()));
    }
    let sidecars = views.init.iter().filter(|view| view.sidecar);
    let unready: Vec<&str> = sidecars.chain(&views.main).filter(|view| !view.ready).map(|view| &*view.name).collect();
    if unready.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    }
}

/// Conditions that others set, and that a pod wants for being ready.
fn gates_open(pod: &Pod) -> Holds {
    let conditions = || pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_true = |name: &str| conditions().any(|condition| condition.type_ == name && condition.status == "True");
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    match gates.map(|gate| &gate.condition_type).find(|name| !is_true(name)) {
        None => Ok(()),
        Some(name) => Err(("ReadinessGatesNotReady", format!("the condition {name:?} is not True"))),
    }
}

fn condition(name: &str, holds: Result<(), (&str, String)>, previous: &[PodCondition], now: Timestamp) -> PodCondition {
    let status = if holds.is_ok() { "True" } else { "False" };
    let before = previous.iter().find(|before| before.type_ == name && before.status == status);
    let (reason, message) = holds.err().unzip();
    PodCondition {
        type_: name.into(),
        status: status.into(),
        reason: reason.map(Into::into),
        message: message.filter(|message| !message.is_empty()),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
        ..PodCondition::default()
    }
}

fn container_status(view: &View) -> ContainerStatus {
    let state = match &view.state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some((*reason).into()),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
            }),
            ..ContainerState::default()
        },
        State::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        State::Ended(ended) => terminated(ended),
    };
    ContainerStatus {
        name: view.name.clone(),
        image: view.image.clone(),
        image_id: view.image.clone(),
        container_id: view.pid.map(|pid| format!("process://{pid}")),
        state: Some(state),
        last_state: view.last.as_ref().map(terminated),
        restart_count: view.restarts,
        started: Some(view.started),
        ready: view.ready,
        ..ContainerStatus::default()
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    let state = ContainerStateTerminated {
        exit_code: ended.code,
        signal: ended.signal,
        reason: Some(if ended.code == 0 { "Completed" } else { "Error" }.into()),
        started_at: Some(Time(ended.since)),
        finished_at: Some(Time(ended.until)),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(state), ..ContainerState::default() }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use k8s_openapi::api::core::v1::Container;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::super::views::{Ended, State, Views};
    use super::status;

    fn ended(code: i32) -> State {
        State::Ended(Ended { code, signal: None, since: Timestamp::UNIX_EPOCH, until: Timestamp::UNIX_EPOCH })
    }

    /// A pod with an init container and a main one, changed, and then its phase and its two conditions of readiness.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Views), expected: (&str, &str, &str)) {
        let named = |name: &str| Container { name: name.into(), ..Container::default() };
        let mut views = Views::new(&[named("init")], &[named("app")]);
        (views.init[0].state, views.init[0].finished) = (ended(0), true);
        change(&mut views);
        let pod = json!({ "spec": { "containers": [], "readinessGates": [{ "conditionType": "open" }] },
            "status": { "conditions": [{ "type": "open", "status": "True" }] } });
        let pod = serde_json::from_value(pod).unwrap();
        let epoch = Timestamp::UNIX_EPOCH;
        let status = status(&pod, Ipv4Addr::LOCALHOST, epoch, &views, &[], epoch);
        let conditions = status.conditions.unwrap();
        let is = |name: &str| conditions.iter().find(|condition| condition.type_ == name).unwrap().status.clone();
        assert_eq!((&*status.phase.unwrap(), &*is("Initialized"), &*is("Ready")), expected);
    }

    #[test]
    fn a_pod_is_what_its_containers_are() {
        let running = || State::Running { since: Timestamp::UNIX_EPOCH };
        check(|_| (), ("Pending", "True", "False"));
        check(|views| views.init[0].state = running(), ("Pending", "False", "False"));
        check(|views| views.init[0].state = ended(1), ("Failed", "False", "False"));
        check(|views| views.main[0].state = running(), ("Running", "True", "False"));
        check(|views| (views.main[0].state, views.main[0].ready) = (running(), true), ("Running", "True", "True"));
        check(|views| views.main[0].state = ended(1), ("Running", "True", "False"));
        check(|views| (views.main[0].state, views.main[0].finished) = (ended(1), true), ("Failed", "True", "False"));
        check(|views| (views.main[0].state, views.main[0].finished) = (ended(0), true), ("Succeeded", "True", "False"));
    }
}
