//! The feed: its whole transition table, and the rules one by one.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use backstay_terms::Position;
use proptest::prelude::*;
use std::fmt::Write as _;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn start() -> FeedStart {
    FeedStart {
        from: Lsn(1000),
        durable: Lsn(1000),
        known: Lsn(1000),
        server_end: Lsn(1000),
        wal_sender_timeout: ms(60_000),
        marks: Marks::Count,
        now: ms(0),
    }
}

fn feed() -> Feed {
    Feed::begin(&start()).0
}

fn wal(begins: u64, length: u64) -> Input {
    Input::Wal {
        begins: Lsn(begins),
        length,
        server_end: Lsn(begins + length),
        server_time: 7,
    }
}

fn asks(end: u64) -> Input {
    Input::Keepalive {
        server_end: Lsn(end),
        server_time: 8,
        reply: Reply::Requested,
    }
}

fn lives(end: u64, time: i64) -> Input {
    Input::Keepalive {
        server_end: Lsn(end),
        server_time: time,
        reply: Reply::NotRequested,
    }
}

const TICK: Input = Input::Tick(Listening::Yes);

fn status(lsn: u64) -> Output {
    Output::Status(Lsn(lsn), Reply::NotRequested)
}

fn mark(position: u64, time: i64) -> Output {
    Output::Mark(LogMark {
        position: Position(position),
        time,
    })
}

/// A feed in each state, at 2 s, with 100 bytes received that are not durable.
fn in_state(name: &str) -> Feed {
    let mut feed = feed();
    let mut on = |now: u64, input| drop(feed.on(ms(now), input).unwrap());
    on(1000, wal(1000, 100));
    match name {
        "streaming" => {}
        "owing" => on(1500, asks(1100)),
        "stopping" => {
            on(500, asks(1100));
            on(1500, TICK);
            on(1510, asks(1100));
        }
        "finished" => on(1900, Input::Finish),
        "timeline ended" => on(1900, Input::ServerDone),
        "closed" => {
            feed.state = State::Closed;
        }
        other => panic!("{other} is no state"),
    }
    feed
}

fn name(state: State) -> &'static str {
    match state {
        State::Streaming => "streaming",
        State::Owing(_) => "owing",
        State::Stopping(_) => "stopping",
        State::Finished => "finished",
        State::TimelineEnded => "timeline ended",
        State::Closed => "closed",
    }
}

fn shown(outputs: &Result<Vec<Output>, Refused>) -> String {
    let one = |output: &Output| match output {
        Output::Status(lsn, Reply::Requested) => format!("status {} and ask", lsn.0),
        Output::Status(lsn, Reply::NotRequested) => format!("status {}", lsn.0),
        Output::FlushWanted => "flush".to_owned(),
        Output::Mark(mark) => format!("mark {}", mark.position.0),
        Output::CopyDone => "copy done".to_owned(),
        Output::Close(why) => format!("close, {why:?}"),
    };
    match outputs {
        Err(refused) => format!("refused: {refused}"),
        Ok(outputs) if outputs.is_empty() => "-".to_owned(),
        Ok(outputs) => outputs.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[test]
fn the_transition_table_is_the_reviewed_one() {
    let states = [
        "streaming",
        "owing",
        "stopping",
        "finished",
        "timeline ended",
        "closed",
    ];
    let inputs: [(&str, u64, Input); 18] = [
        ("WAL that follows", 2000, wal(1100, 50)),
        ("WAL with a hole before it", 2000, wal(1200, 50)),
        ("keepalive", 2000, lives(1100, 9)),
        ("request, same end of WAL", 2000, asks(1100)),
        ("request, other end of WAL", 2000, asks(1050)),
        ("part is durable", 2000, Input::Durable(Lsn(1050))),
        ("all is durable", 2000, Input::Durable(Lsn(1100))),
        ("what was durable before", 2000, Input::Durable(Lsn(900))),
        ("more is durable than came", 2000, Input::Durable(Lsn(1101))),
        ("a tick too early", 2000, TICK),
        ("a tick 1 s after the request", 2510, TICK),
        ("a tick 5 s after the first request", 5500, TICK),
        ("a tick 10 s later", 12_000, TICK),
        ("a tick after 60 s of silence", 62_000, TICK),
        (
            "a tick after 20 s without room",
            21_000,
            Input::Tick(Listening::No),
        ),
        (
            "a tick after 61 s without room",
            62_000,
            Input::Tick(Listening::No),
        ),
        ("we finish", 2000, Input::Finish),
        ("the server ends the stream", 2000, Input::ServerDone),
    ];
    let mut table =
        String::from("state           input                                next            output\n");
    for state in states {
        for (what, now, input) in inputs {
            let mut feed = in_state(state);
            assert_eq!(name(feed.state()), state);
            let outputs = feed.on(ms(now), input);
            writeln!(
                table,
                "{state:<15} {what:<36} {:<15} {}",
                name(feed.state()),
                shown(&outputs)
            )
            .unwrap();
        }
    }
    assert!(
        table == include_str!("transitions.txt"),
        "src/replication/feed/transitions.txt should be:\n{table}"
    );
}

#[test]
fn a_confirmation_beyond_the_received_position_is_refused() {
    let mut feed = feed();
    let refused = feed.on(ms(1), Input::Durable(Lsn(1001))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "0/3E9 was confirmed as durable, but only WAL before 0/3E8 has been received"
    );
}

#[test]
fn a_restart_reports_what_is_durable_although_the_stream_begins_before_it() {
    let (mut feed, first) = Feed::begin(&FeedStart {
        durable: Lsn(1500),
        server_end: Lsn(2000),
        ..start()
    });
    assert_eq!(first, Output::Status(Lsn(1500), Reply::Requested));
    feed.on(ms(100), wal(1000, 200)).unwrap();
    assert_eq!(feed.on(ms(200), Input::Durable(Lsn(1200))), Ok(vec![]));
    assert_eq!(feed.on(ms(300), asks(1200)), Ok(vec![status(1500)]));
    assert_eq!(feed.on(ms(400), Input::Durable(Lsn(1500))), Ok(vec![]));
}

#[test]
fn the_tail_of_the_timeline_before_may_be_confirmed_after_the_switch() {
    let (mut feed, _) = Feed::begin(&FeedStart {
        known: Lsn(1400),
        server_end: Lsn(2000),
        ..start()
    });
    assert_eq!(
        feed.on(ms(100), Input::Durable(Lsn(1400))),
        Ok(vec![status(1400)])
    );
    assert!(feed.on(ms(200), Input::Durable(Lsn(1401))).is_err());
}

#[test]
fn a_request_is_answered_when_what_had_arrived_is_durable() {
    let mut feed = feed();
    feed.on(ms(100), wal(1000, 100)).unwrap();
    assert_eq!(feed.on(ms(200), asks(1100)), Ok(vec![Output::FlushWanted]));
    feed.on(ms(300), wal(1100, 100)).unwrap();
    assert_eq!(feed.wake_at(), Some(ms(1200)));
    // 1100 had arrived when the request came; the rest need not be waited for.
    assert_eq!(
        feed.on(ms(400), Input::Durable(Lsn(1100))),
        Ok(vec![mark(1100, 8), status(1100)])
    );
    assert_eq!(feed.state(), State::Streaming);
}

#[test]
fn a_request_is_answered_honestly_after_a_second() {
    let mut feed = feed();
    feed.on(ms(100), wal(1000, 100)).unwrap();
    feed.on(ms(200), asks(1100)).unwrap();
    assert_eq!(feed.on(ms(1199), TICK), Ok(vec![]));
    assert_eq!(feed.on(ms(1200), TICK), Ok(vec![status(1000)]));
    assert_eq!(feed.state(), State::Streaming);
}

#[test]
fn a_stopping_primary_is_let_go_after_five_seconds() {
    let mut feed = feed();
    feed.on(ms(0), wal(1000, 100)).unwrap();
    let mut answers = 0;
    let mut now = 0;
    feed.on(ms(now), asks(1100)).unwrap();
    let closed = loop {
        now = feed.wake_at().unwrap().as_millis() as u64;
        let outputs = feed.on(ms(now), TICK).unwrap();
        if let Some(Output::Close(why)) = outputs.last() {
            break *why;
        }
        answers += outputs
            .iter()
            .filter(|output| matches!(output, Output::Status(..)))
            .count();
        // The walsender asks again as soon as it is answered.
        feed.on(ms(now + 1), asks(1100)).unwrap();
    };
    assert_eq!((closed, now, answers), (Why::PrimaryStopping, 5000, 4));
    assert_eq!(feed.state(), State::Closed);
}

#[test]
fn without_room_and_without_a_working_store_the_connection_is_given_up() {
    let held = Input::Tick(Listening::No);
    let mut feed = feed();
    feed.on(ms(1000), wal(1000, 100)).unwrap();
    assert_eq!(
        feed.on(ms(30_999), held).unwrap(),
        [Output::Status(Lsn(1000), Reply::Requested)]
    );
    feed.on(ms(31_000 - 1), Input::Durable(Lsn(1010))).unwrap();
    assert_eq!(
        feed.on(ms(60_900), held).unwrap(),
        [Output::Status(Lsn(1010), Reply::Requested)]
    );
    assert_eq!(feed.on(ms(60_999), held).unwrap(), [Output::Close(Why::Held)]);
}

#[test]
fn a_stopping_primary_waits_for_a_store_that_works() {
    let mut feed = in_state("stopping");
    assert_eq!(
        feed.on(ms(4000), Input::Durable(Lsn(1050))),
        Ok(vec![status(1050)])
    );
    assert_eq!(feed.on(ms(5500), TICK), Ok(vec![status(1050)]));
    assert_eq!(
        feed.on(ms(9000), TICK),
        Ok(vec![status(1050), Output::Close(Why::PrimaryStopping)])
    );
}

#[test]
fn a_stopping_primary_goes_at_once_when_the_tail_becomes_durable() {
    let mut feed = in_state("stopping");
    assert_eq!(
        feed.on(ms(2300), Input::Durable(Lsn(1100))),
        Ok(vec![mark(1100, 8), status(1100)])
    );
    assert_eq!(
        feed.on(ms(2301), asks(1100)),
        Ok(vec![mark(1100, 8), status(1100)])
    );
}

#[test]
fn requests_far_apart_are_not_taken_for_a_stop() {
    let mut feed = feed();
    feed.on(ms(0), wal(1000, 100)).unwrap();
    feed.on(ms(0), asks(1100)).unwrap();
    feed.on(ms(1000), TICK).unwrap();
    feed.on(ms(30_000), asks(1100)).unwrap();
    assert_eq!(name(feed.state()), "owing");
}

#[test]
fn progress_is_reported_at_once_and_then_every_ten_milliseconds() {
    let mut feed = feed();
    feed.on(ms(20), wal(1000, 100)).unwrap();
    assert_eq!(feed.on(ms(21), Input::Durable(Lsn(1010))), Ok(vec![status(1010)]));
    assert_eq!(feed.on(ms(25), Input::Durable(Lsn(1020))), Ok(vec![]));
    assert_eq!(feed.on(ms(30), Input::Durable(Lsn(1030))), Ok(vec![]));
    assert_eq!(feed.wake_at(), Some(ms(31)));
    assert_eq!(feed.on(ms(31), TICK), Ok(vec![status(1030)]));
}

#[test]
fn reports_come_within_a_third_of_the_servers_timeout_and_ask_for_an_answer() {
    let wake = |milliseconds| {
        Feed::begin(&FeedStart {
            wal_sender_timeout: ms(milliseconds),
            ..start()
        })
        .0
        .wake_at()
    };
    assert_eq!(
        (wake(60_000), wake(3000), wake(0)),
        (Some(ms(10_000)), Some(ms(1000)), Some(ms(10_000)))
    );
    let mut feed = feed();
    assert_eq!(
        feed.on(ms(10_000), TICK),
        Ok(vec![Output::Status(Lsn(1000), Reply::Requested)])
    );
}

#[test]
fn a_keepalive_during_catch_up_makes_no_mark() {
    let (mut feed, _) = Feed::begin(&FeedStart {
        server_end: Lsn(5000),
        ..start()
    });
    // The keepalive carries the time now and the position sent so far.
    assert_eq!(feed.on(ms(1), lives(1000, 50)), Ok(vec![]));
    feed.on(
        ms(2),
        Input::Wal {
            begins: Lsn(1000),
            length: 4000,
            server_end: Lsn(6000),
            server_time: 60,
        },
    )
    .unwrap();
    feed.on(ms(30), Input::Durable(Lsn(5000))).unwrap();
    assert_eq!(feed.on(ms(60), lives(5000, 70)), Ok(vec![]));
    feed.on(ms(61), wal(5000, 1000)).unwrap();
    assert_eq!(
        feed.on(ms(90), Input::Durable(Lsn(6000))),
        Ok(vec![mark(6000, 7), status(6000)])
    );
}

#[test]
fn an_idle_primary_marks_the_same_position_again_and_again() {
    let mut feed = feed();
    assert_eq!(feed.on(ms(1), lives(1000, 50)), Ok(vec![mark(1000, 50)]));
    assert_eq!(feed.on(ms(2), lives(1000, 60)), Ok(vec![mark(1000, 60)]));
}

#[test]
fn a_mark_waits_until_its_bytes_are_durable_and_the_newest_wins() {
    let mut feed = feed();
    feed.on(ms(1), wal(1000, 100)).unwrap();
    feed.on(ms(2), lives(1100, 20)).unwrap();
    feed.on(ms(3), wal(1100, 100)).unwrap();
    assert_eq!(
        feed.on(ms(4), Input::Durable(Lsn(1150))),
        Ok(vec![mark(1100, 20)])
    );
    assert_eq!(feed.on(ms(5), Input::Durable(Lsn(1200))), Ok(vec![mark(1200, 7)]));
}

#[test]
fn a_standby_makes_no_marks() {
    let (mut feed, _) = Feed::begin(&FeedStart {
        marks: Marks::None,
        ..start()
    });
    assert_eq!(feed.on(ms(1), lives(1000, 50)), Ok(vec![]));
}

#[test]
fn waiting_marks_stay_bounded() {
    let mut feed = feed();
    for n in 0..1000 {
        feed.on(ms(n), wal(1000 + n * 10, 10)).unwrap();
    }
    assert_eq!(feed.waiting.len(), MARKS_WAITING_MAX);
    let outputs = feed.on(ms(2000), Input::Durable(Lsn(11_000))).unwrap();
    assert_eq!(outputs[0], mark(11_000, 7));
}

#[derive(Clone, Debug)]
enum Step {
    Wal(u64),
    Keepalive(Reply),
    Durable(u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        (1u64..5000).prop_map(Step::Wal),
        Just(Step::Keepalive(Reply::Requested)),
        Just(Step::Keepalive(Reply::NotRequested)),
        (0u64..6000).prop_map(Step::Durable),
        (0u64..3000).prop_map(Step::Wait),
    ];
    prop::collection::vec(one, 1..80)
}

proptest! {
    #[test]
    fn reports_never_fall_never_pass_what_is_durable_and_marks_never_pass_it_either(steps in steps()) {
        let (mut feed, mut now, mut received, mut durable, mut reported) = (feed(), 0, 1000, 1000, 1000);
        for step in steps {
            let input = match step {
                Step::Wal(length) => { received += length; wal(received - length, length) }
                Step::Keepalive(reply) => Input::Keepalive { server_end: Lsn(received), server_time: now as i64, reply },
                Step::Durable(behind) => {
                    let position = received.saturating_sub(behind).max(1000);
                    durable = durable.max(position);
                    Input::Durable(Lsn(position))
                }
                Step::Wait(milliseconds) => { now += milliseconds; TICK }
            };
            let before = feed.state();
            let outputs = feed.on(ms(now), input).unwrap();
            for output in &outputs {
                if let Output::Status(lsn, _) = output {
                    prop_assert!((reported..=durable).contains(&lsn.0));
                    reported = lsn.0;
                }
                if let Output::Mark(mark) = output {
                    prop_assert!(mark.position.0 <= durable);
                }
            }
            // Whoever is owed an answer has it, or a moment at which it comes.
            if let (State::Owing(_), State::Streaming) = (before, feed.state()) {
                prop_assert!(outputs.iter().any(|output| matches!(output, Output::Status(..))));
            }
            if let State::Owing(request) = feed.state() {
                prop_assert!(feed.wake_at().unwrap() <= request.due.unwrap());
            }
            if feed.state() == State::Closed { break; }
        }
    }
}
