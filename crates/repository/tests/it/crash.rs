//! A process dies at every store call, in every way; what it leaves is sound, and the next process converges.
//!
//! Promise: invariants are checked by id over the surviving objects alone; the harness finds planted bugs; the number
//! of cells is printed. Not here: what survives of files (the store's own crash tests).

pub mod containers;
mod flow;
mod invariants;
mod ledger;
mod server;
mod stores;
mod sweep;
mod wrong;

use backstay_store::faults::{CrashMode, Fault, FaultKind};

use flow::everything;
use stores::Base;
use sweep::{Report, sweep, sweep_faults, sweep_twice};

fn none_broken(what: &str, report: &Report) {
    println!(
        "measured: crash sweep, {what}: {} cells over {} calls",
        report.cells, report.calls
    );
    let shown: Vec<&String> = report.broken.iter().take(10).collect();
    assert!(
        shown.is_empty(),
        "{} broken in {} cells: {shown:#?}",
        report.broken.len(),
        report.cells
    );
}

#[tokio::test]
async fn a_death_at_any_call_breaks_no_invariant_and_the_next_run_converges() {
    let report = sweep(everything, Base::Strict, &CrashMode::HONEST).await;
    none_broken("honest store", &report);
    assert!(report.cells > 200, "only {} cells", report.cells);
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_of_a_put_makes_no_difference() {
    let report = sweep(everything, Base::Overwriting, &CrashMode::HONEST).await;
    none_broken("store that overwrites", &report);
}

#[tokio::test]
async fn a_torn_object_of_a_dishonest_store_is_refused_and_never_read_as_something_else() {
    let report = sweep(everything, Base::Strict, &[CrashMode::TornWrite]).await;
    none_broken("store that tears writes", &report);
}

#[tokio::test]
async fn two_deaths_in_a_row_break_no_invariant_either() {
    const SEED: u64 = 1;
    let report = sweep_twice(everything, 500, SEED).await;
    none_broken("two deaths, places by chance (seed 1)", &report);
}

#[tokio::test]
async fn a_call_that_fails_once_or_whose_answer_is_lost_is_repeated_and_changes_nothing() {
    let faults = [
        Fault::Refuse(FaultKind::Busy),
        Fault::Refuse(FaultKind::ShortRead),
        Fault::TimeoutAfterEffect,
    ];
    for base in [Base::Strict, Base::Overwriting] {
        let report = sweep_faults(everything, base, &faults).await;
        none_broken(&format!("passing faults with retries, {base:?}"), &report);
    }
}

#[tokio::test]
async fn the_harness_finds_a_writer_that_acknowledges_early() {
    let report = sweep(wrong::acknowledges_early, Base::Strict, &CrashMode::HONEST).await;
    assert!(report.finds("LOG-1"), "{:?}", report.broken);
}

#[tokio::test]
async fn the_harness_finds_a_writer_that_writes_the_head_first() {
    let report = sweep(wrong::head_first, Base::Strict, &CrashMode::HONEST).await;
    assert!(report.finds("REPO-4"), "{:?}", report.broken);
}

#[tokio::test]
async fn the_harness_finds_a_writer_whose_retry_overwrites() {
    let report = sweep(wrong::retry_overwrites, Base::Overwriting, &CrashMode::HONEST).await;
    assert!(report.finds("REPO-1"), "{:?}", report.broken);
}

#[tokio::test]
async fn the_harness_finds_a_writer_that_seals_before_its_envelope_is_stored() {
    let report = sweep(wrong::envelope_last, Base::Strict, &CrashMode::HONEST).await;
    assert!(report.finds("KEY-2"), "{:?}", report.broken);
}

#[tokio::test]
async fn the_harness_finds_a_writer_that_deletes() {
    let report = sweep(wrong::deletes, Base::Strict, &CrashMode::HONEST).await;
    assert!(report.finds("REPO-2"), "{:?}", report.broken);
}
