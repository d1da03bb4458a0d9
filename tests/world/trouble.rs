//! Makes things go wrong, and well again, and keeps what the cluster says of its pods a little behind the truth.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fault::{Fault, From, Whom};
use crate::process::Process;
use crate::world::{Cut, Net, Place, Told, World, count};

/// Between two looks of the cluster at its pods, in milliseconds.
const LOOK_MS: u64 = 200;

/// Starts a replica in a new pod.
pub(crate) fn add(world: &Arc<World>) {
    let mut places = world.places.lock();
    let place = places.len();
    let address = ([10, 0, 0, u8::try_from(place).expect("few pods")], 9_000).into();
    places.push(Place { address, process: None, has_pod: true, told: Told::default(), changes_ms: None });
    drop(places);
    Process::start(world, place);
}

/// Lets everything of the seed's list happen in its time.
pub(crate) async fn troubles(world: Arc<World>) {
    for (at_ms, fault) in world.scenario.faults.clone() {
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(world.now_ms()))).await;
        if !world.is_healed() {
            happen(&world, fault);
        }
    }
}

/// Points canaries at other versions in their time.
pub(crate) async fn releases(world: Arc<World>) {
    for (at_ms, canary, version) in world.scenario.releases.clone() {
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(world.now_ms()))).await;
        world.tell(|| format!("app-{canary} is pointed at version {version}"));
        world.tally("release");
        world.release(canary, version);
    }
}

fn happen(world: &Arc<World>, fault: Fault) {
    world.tell(|| format!("fault: {fault:?}"));
    match fault {
        Fault::Kill { whom, back_ms, same_pod } => {
            let Some(process) = find(world, whom) else { return };
            world.tally("fault: kill");
            kill(world, &process, back_ms, same_pod);
        }
        Fault::Stop { whom, back_ms } => {
            let Some(process) = find(world, whom) else { return };
            world.tally("fault: graceful stop, and another pod");
            world.pending.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(replace(world.clone(), process, back_ms));
        }
        Fault::Add => {
            world.tally("fault: one more replica");
            add(world);
        }
        Fault::Cut { whom, from, ms } => {
            let Some(process) = find(world, whom) else { return };
            let (what, cut) = ways(world, process.place, from);
            world.tally(what);
            for_a_while(world, ms, move |net, is_cut| net.cut(&cut, is_cut));
        }
        Fault::Outage { ms } => {
            world.tally("fault: outage of the store");
            for_a_while(world, ms, |net, is_out| count(&mut net.outages, is_out));
        }
        Fault::BadCalls { ms } => {
            world.tally("fault: calls go wrong");
            for_a_while(world, ms, |net, is_bad| count(&mut net.bad_calls, is_bad));
        }
        Fault::BadAsks { ms } => {
            world.tally("fault: questions get lost");
            for_a_while(world, ms, |net, is_bad| count(&mut net.bad_asks, is_bad));
        }
        Fault::BreakWatch { whom } => {
            let Some(process) = find(world, whom) else { return };
            world.tally("fault: a watch breaks off");
            process.watch.close();
        }
        Fault::Unready { is_canary, ms } => {
            world.tally("fault: an arm is not ready");
            for_a_while(world, ms, move |net, is_out| count(&mut net.unready[usize::from(is_canary)], is_out));
        }
        Fault::Retell => {
            world.tally("fault: the configuration is told again");
            world.tell_configuration();
        }
    }
}

fn find(world: &World, whom: Whom) -> Option<Arc<Process>> {
    let living: Vec<_> =
        world.living().into_iter().filter(|process| !process.is_stopping.load(Ordering::Relaxed)).collect();
    let leader = living.iter().find(|process| process.board.read().leads).cloned();
    match whom {
        Whom::Leader => leader,
        Whom::Nth(at) => (!living.is_empty()).then(|| living[at % living.len()].clone()),
    }
}

fn kill(world: &Arc<World>, process: &Arc<Process>, back_ms: Option<u64>, same_pod: bool) {
    world.tell(|| format!("{} is gone", process.boot));
    process.kill(world);
    world.places.lock()[process.place].has_pod = same_pod && back_ms.is_some();
    let (world, place) = (world.clone(), process.place);
    let Some(back_ms) = back_ms else { return };
    world.pending.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(back_ms)).await;
        if same_pod {
            Process::start(&world, place);
        } else {
            add(&world);
        }
        world.pending.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn replace(world: Arc<World>, process: Arc<Process>, back_ms: u64) {
    let place = process.place;
    let other = async {
        tokio::time::sleep(Duration::from_millis(back_ms)).await;
        add(&world);
    };
    let (_, ()) = tokio::join!(process.stop(world.clone()), other);
    world.places.lock()[place].has_pod = false;
    world.pending.fetch_sub(1, Ordering::Relaxed);
}

/// The ways that are cut.
fn ways(world: &World, place: usize, from: From) -> (&'static str, Cut) {
    let others = (0..world.places.lock().len()).filter(|other| *other != place);
    let out: Vec<_> = others.map(|other| (place, other)).collect();
    let back = |pairs: &[(usize, usize)]| pairs.iter().map(|(from, to)| (*to, *from)).collect::<Vec<_>>();
    let both = |pairs: Vec<(usize, usize)>| [back(&pairs), pairs].concat();
    match from {
        From::Store => ("cut: from the store", Cut { store: Some(place), ..Cut::default() }),
        From::One => {
            ("cut: from another replica", Cut { pairs: both(out.into_iter().take(1).collect()), ..Cut::default() })
        }
        From::OthersOneWay => ("cut: from the others, one way", Cut { pairs: out, ..Cut::default() }),
        From::Others => ("cut: from the others", Cut { pairs: both(out), ..Cut::default() }),
        From::Everybody => ("cut: from everybody", Cut { pairs: both(out), store: Some(place), clients: Some(place) }),
    }
}

/// Changes the network and changes it back.
fn for_a_while(world: &Arc<World>, ms: u64, change: impl Fn(&mut Net, bool) + Send + 'static) {
    change(&mut world.net.lock(), true);
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if !world.is_healed() {
            change(&mut world.net.lock(), false);
        }
    });
}

/// Keeps what the cluster says of its pods current, some time after.
pub(crate) async fn cluster(world: Arc<World>) {
    let mut looks = tokio::time::interval(Duration::from_millis(LOOK_MS));
    loop {
        looks.tick().await;
        let now_ms = world.now_ms();
        let slowest_ms = if world.is_healed() { 300 } else { 3_000 };
        for (at, place) in world.places.lock().iter_mut().enumerate() {
            let is_seen = world.net.lock().reaches_clients(at);
            let accepts = |process: &Arc<Process>| {
                process.accepts.load(Ordering::Relaxed) && !process.is_stopping.load(Ordering::Relaxed)
            };
            let serves = is_seen && place.process.as_ref().is_some_and(accepts);
            let truth = Told { is_listed: place.has_pod, serves };
            match place.changes_ms {
                _ if place.told == truth => place.changes_ms = None,
                None => place.changes_ms = Some(now_ms + world.roll(100..slowest_ms)),
                Some(due_ms) if due_ms <= now_ms => {
                    place.told = truth;
                    place.changes_ms = None;
                }
                Some(_) => {}
            }
        }
    }
}
