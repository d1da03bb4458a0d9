//! The world simulation: the real control loop of every replica, in made-up worlds in which everything else goes wrong.
//!
//! ```text
//!   clients ─▶ plane: decide, meters, tripwire ◀── tables ── Controller ◀── candidate ◀─┐
//!   (request)        (real pure crates)     ── counts ──▶   (the real one)  ◀── watch ◀──┼── api server
//!                            ▲                                   │   └── link: lost, late, twice ─▶┘
//!                            └────────── site: questions, partitions ┘
//!   everything that happens ─▶ promises
//! ```
//!
//! A seed is a world: replicas, versions, traffic, and a list of faults. It runs on virtual time in one thread, so it is over
//! in milliseconds and goes the same way every time. `SERIN_WORLD_SEED=123` tells one world in words; `SERIN_WORLD_SEEDS`
//! and `SERIN_WORLD_FIRST` choose others than the first ten thousand.
#![allow(clippy::print_stdout, reason = "a test tells its seed and what it measured, to who asks or when it fails")]

mod api;
mod breaks;
mod candidate;
mod fault;
mod life;
mod link;
mod plane;
mod process;
mod promises;
mod request;
mod scenario;
mod site;
mod story;
mod tally;
mod trouble;
mod world;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use breaks::Break;
use life::{End, live};
use parking_lot::Mutex;
use promises::Promise;
use tally::Tally;

/// Worlds of an ordinary run.
const SEEDS: u64 = 10_000;
/// Happenings shown of a world that broke a promise.
const SHOWN: usize = 60;
/// Worlds that a break may hide in before it has to be noticed.
const SEEDS_BROKEN: u64 = 300;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Lets worlds live on all cores until one breaks a promise: the first of those, and what happened in all.
fn explore(seeds: Range<u64>, broken: Option<Break>) -> (Option<u64>, Tally) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let all = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Smaller seeds are under way already, so the one that is told is the smallest of all.
                    if !seeds.contains(&seed) || failed.load(Ordering::Relaxed) < seed {
                        break;
                    }
                    let end = live(seed, broken, false);
                    tally.merge(&end.tally);
                    if end.breach.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
                all.lock().merge(&tally);
            });
        }
    });
    let failed = failed.into_inner();
    ((failed != u64::MAX).then_some(failed), all.into_inner())
}

/// What happened in a world, and how to see it again.
fn tell(seed: u64, broken: Option<Break>) -> String {
    let End { breach, notes, .. } = live(seed, broken, true);
    let shown = notes[notes.len().saturating_sub(SHOWN)..].join("\n");
    let breach = breach.map_or_else(|| "every promise was kept".to_owned(), |breach| breach.to_string());
    format!(
        "seed {seed}: {breach}\n{shown}\nsee it again: SERIN_WORLD_SEED={seed} cargo test -p serin-tests --test world a_seed -- --nocapture"
    )
}

#[test]
fn every_promise_holds_in_every_world() {
    let (first, count) = (number("SERIN_WORLD_FIRST").unwrap_or(0), number("SERIN_WORLD_SEEDS").unwrap_or(SEEDS));
    let began = Instant::now();
    let (failed, tally) = explore(first..first + count, None);
    println!("{count} worlds from seed {first} in {:.1} s\n{tally}", began.elapsed().as_secs_f64());
    if let Some(seed) = failed {
        panic!("{}", tell(seed, None));
    }
    let (good, taken_back) = (tally.of(story::GOOD), tally.of(story::GOOD_TAKEN_BACK));
    assert!(taken_back <= most_by_chance(good), "{taken_back} of {good} good versions were taken back by evidence");
}

/// How many of these good versions may be taken back by chance, at most one in 1,000 of them: four deviations more are luck
/// that no seed has.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
fn most_by_chance(good: u64) -> u64 {
    let mean = good as f64 / 1_000.0;
    (mean + 4.0 * mean.sqrt() + 1.0) as u64
}

#[test]
fn a_seed_is_told_in_words() {
    let Some(seed) = number("SERIN_WORLD_SEED") else { return };
    let End { breach, notes, tally, .. } = live(seed, None, true);
    println!("{:#?}\n{}\n{tally}", scenario::Scenario::of(seed), notes.join("\n"));
    if let Some(breach) = breach {
        panic!("seed {seed}: {breach}");
    }
}

#[test]
fn a_world_goes_the_same_way_every_time() {
    for seed in 0..20 {
        let (quiet, told) = (live(seed, None, false), live(seed, None, true));
        assert_eq!((quiet.digest, quiet.tally, quiet.breach), (told.digest, told.tally, told.breach), "seed {seed}");
    }
}

/// A break is noticed, as a breach of this promise.
#[track_caller]
fn check(broken: Break, promise: Promise) {
    let (failed, _) = explore(0..SEEDS_BROKEN, Some(broken));
    let seed = failed.unwrap_or_else(|| panic!("{broken:?} was not noticed in {SEEDS_BROKEN} worlds"));
    let breach = live(seed, Some(broken), false).breach.expect("a seed goes the same way every time");
    println!("{broken:?} was noticed in world {seed}: {breach}");
    assert_eq!(breach.promise, promise, "{}", tell(seed, Some(broken)));
}

#[test]
fn a_save_that_is_skipped_is_noticed() {
    check(Break::SaveSkipped, Promise::WeightIsSaved);
}

#[test]
fn a_trip_that_is_forgotten_is_noticed() {
    check(Break::TripForgotten, Promise::TripHolds);
}

#[test]
fn a_stake_that_is_given_out_again_is_noticed() {
    check(Break::StakeAgain, Promise::StakeOnce);
}
