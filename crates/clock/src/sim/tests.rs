//! What a simulated clock promises to the tests that stand on it.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn sleep_and_note(clock: &SimClock, seconds: u64, notes: &Arc<Mutex<Vec<(u64, u64)>>>) {
    let (clock, notes) = (clock.clone(), Arc::clone(notes));
    tokio::spawn(async move {
        clock.sleep(SECOND * u32::try_from(seconds).expect("small")).await;
        let at = clock.instant().as_secs();
        notes.lock().expect("not poisoned").push((seconds, at));
    });
}

#[tokio::test]
async fn sleepers_wake_in_the_order_of_their_moments() {
    let (clock, notes) = (SimClock::new(), Arc::default());
    for seconds in [3, 1, 2, 9] {
        sleep_and_note(&clock, seconds, &notes);
    }
    clock.until_sleepers(4).await;
    clock.run_for(SECOND * 5).await;
    assert_eq!(*notes.lock().expect("not poisoned"), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!((clock.sleepers(), clock.instant()), (1, SECOND * 5));
}

#[tokio::test]
async fn a_task_that_sleeps_in_a_loop_wakes_once_for_each_step() {
    let clock = SimClock::new();
    let (ticker, ticks) = (clock.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&ticks);
    tokio::spawn(async move {
        loop {
            ticker.sleep(SECOND).await;
            seen.lock()
                .expect("not poisoned")
                .push(ticker.instant().as_secs());
        }
    });
    clock.run_for(SECOND * 4).await;
    assert_eq!(*ticks.lock().expect("not poisoned"), [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_wall_clock_and_the_instant_advance_together() {
    let clock = SimClock::new();
    clock.advance(SECOND * 90);
    assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
    assert_eq!(clock.instant(), SECOND * 90);
}

#[tokio::test]
async fn a_cancelled_sleep_leaves_no_sleeper_behind() {
    let clock = SimClock::new();
    let sleeper = tokio::spawn({
        let clock = clock.clone();
        async move { clock.sleep(SECOND).await }
    });
    clock.until_sleepers(1).await;
    sleeper.abort();
    assert!(sleeper.await.is_err());
    assert_eq!(clock.sleepers(), 0);
}

#[tokio::test]
async fn a_jumping_clock_sleeps_without_anybody_to_wake_it() {
    let clock = SimClock::jumping();
    clock.sleep(SECOND * 3600).await;
    clock.sleep(SECOND).await;
    assert_eq!(clock.instant(), SECOND * 3601);
}
