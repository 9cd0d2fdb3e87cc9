//! The grammar of times as tables, in a zone with daylight saving.

use super::*;

const NOW: &str = "2026-11-23T10:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn berlin() -> Result<Zone, TimeError> {
    Zone::named("Europe/Berlin")
}

fn in_berlin(text: &str) -> Result<String, String> {
    read(text, now(), &berlin)
        .map(in_utc)
        .map_err(|error| error.to_string())
}

#[test]
fn each_form_is_read_in_its_zone() {
    let table = [
        ("now", "2026-11-23T10:00:00Z"),
        ("10 min ago", "2026-11-23T09:50:00Z"),
        ("2h ago", "2026-11-23T08:00:00Z"),
        ("1h30m ago", "2026-11-23T08:30:00Z"),
        ("1 day ago", "2026-11-22T10:00:00Z"),
        ("-5 min", "2026-11-23T09:55:00Z"),
        ("-1h30m", "2026-11-23T08:30:00Z"),
        ("yesterday 14:00", "2026-11-22T13:00:00Z"),
        ("today 09:30", "2026-11-23T08:30:00Z"),
        ("today 09:30:15.5", "2026-11-23T08:30:15.5Z"),
        ("2026-11-22 14:05", "2026-11-22T13:05:00Z"),
        ("2026-11-22T14:05", "2026-11-22T13:05:00Z"),
        ("2026-07-01 14:05:09", "2026-07-01T12:05:09Z"),
        ("2026-11-22 14:05:00.123456", "2026-11-22T13:05:00.123456Z"),
        ("2026-11-22T14:05:00Z", "2026-11-22T14:05:00Z"),
        ("2026-11-22 14:05Z", "2026-11-22T14:05:00Z"),
        ("2026-11-22 14:05 UTC", "2026-11-22T14:05:00Z"),
        ("2026-11-22T14:05:00+05:30", "2026-11-22T08:35:00Z"),
        ("2026-11-22T14:05:00-0800", "2026-11-22T22:05:00Z"),
        ("2026-11-22 14:05:00+01", "2026-11-22T13:05:00Z"),
        ("  now  ", "2026-11-23T10:00:00Z"),
    ];
    for (text, moment) in table {
        assert_eq!(in_berlin(text).as_deref(), Ok(moment), "{text}");
    }
}

#[test]
fn what_is_no_time_says_why() {
    let not_a_day = "it does not begin with a day (2026-11-22, today, yesterday) or end with \"ago\"";
    let table = [
        ("soon", not_a_day.to_owned()),
        ("", not_a_day.to_owned()),
        ("22.11.2026 14:05", not_a_day.to_owned()),
        ("2026-13-22 14:05", "there is no day 2026-13-22".to_owned()),
        ("2026-02-29 14:05", "there is no day 2026-02-29".to_owned()),
        (
            "14:05",
            "it lacks a day: \"today 14:05\" or \"yesterday 14:05\"".to_owned(),
        ),
        (
            "2026-11-22",
            "it lacks a time of day: \"2026-11-22 14:05\"".to_owned(),
        ),
        (
            "yesterday",
            "it lacks a time of day: \"yesterday 14:05\"".to_owned(),
        ),
        (
            "today 9:30",
            "\"9:30\" is not a time of day such as 14:05 or 14:05:09.25".to_owned(),
        ),
        (
            "2026-11-22 24:00",
            "\"24:00\" is not a time of day such as 14:05 or 14:05:09.25".to_owned(),
        ),
        (
            "2026-11-22 14:05:60",
            "\"14:05:60\" is not a time of day such as 14:05 or 14:05:09.25".to_owned(),
        ),
        (
            "2026-11-22_14:05",
            "\"\" is not a time of day such as 14:05 or 14:05:09.25".to_owned(),
        ),
        (
            "2026-11-22 14:05:00.1234567",
            "PostgreSQL knows microseconds: at most six digits of a second".to_owned(),
        ),
        (
            "2026-11-22 14:05 CET",
            "\"CET\" is not an offset such as Z or +01:00".to_owned(),
        ),
        (
            "2026-11-22 14:05+1",
            "\"+1\" is not an offset such as Z or +01:00".to_owned(),
        ),
        ("-5", "\"5\" lacks a unit: 5s, 5min, 5h or 5d".to_owned()),
        (
            "-5 min ago",
            "\"-5 min\" is not a duration such as 1h: it does not begin with a number".to_owned(),
        ),
        ("10 ago", "\"10\" lacks a unit: 10s, 10min, 10h or 10d".to_owned()),
        (
            "a while ago",
            "\"a while\" is not a duration such as 1h: it does not begin with a number".to_owned(),
        ),
    ];
    for (text, reason) in table {
        let expected = format!("{text:?} is not a time: {reason}");
        assert_eq!(in_berlin(text), Err(expected), "{text}");
    }
}

#[test]
fn a_local_time_that_happened_twice_names_both() {
    let failure = Failure::from(&read("2026-10-25 02:30", now(), &berlin).unwrap_err());
    assert_eq!(failure.code, Code::TimeAmbiguous);
    assert_eq!(
        failure.message,
        "2026-10-25 02:30:00 happened twice in Europe/Berlin: 2026-10-25T02:30:00+02:00 and 2026-10-25T02:30:00+01:00"
    );
    assert_eq!(
        failure.help,
        [
            "the first:  --to 2026-10-25T02:30:00+02:00",
            "the second: --to 2026-10-25T02:30:00+01:00"
        ]
    );
}

#[test]
fn a_local_time_that_never_happened_names_both_sides_of_the_jump() {
    let failure = Failure::from(&read("2026-03-29 02:30", now(), &berlin).unwrap_err());
    assert_eq!(
        failure.message,
        "2026-03-29 02:30:00 did not happen in Europe/Berlin: \
         the clocks went from 2026-03-29T02:00:00+01:00 to 2026-03-29T03:00:00+02:00"
    );
    assert_eq!(
        failure.help,
        [
            "by the clock before the jump: --to 2026-03-29T01:30:00Z",
            "by the clock after the jump:  --to 2026-03-29T00:30:00Z"
        ]
    );
}

#[test]
fn yesterday_is_the_day_before_in_the_readers_zone_even_across_a_change_of_clocks() {
    let after_midnight: Timestamp = "2026-10-25T23:30:00Z".parse().unwrap();
    let read = |text| read(text, after_midnight, &berlin).map(in_utc);
    assert_eq!(read("today 00:15"), Ok("2026-10-25T23:15:00Z".to_owned()));
    assert_eq!(read("yesterday 01:00"), Ok("2026-10-24T23:00:00Z".to_owned()));
    assert!(matches!(read("yesterday 02:30"), Err(TimeError::Twice { .. })));
}

#[test]
fn an_unambiguous_text_does_not_ask_for_the_zone() {
    let nowhere = || {
        Err(TimeError::Zone {
            name: "Mars/Olympus".to_owned(),
        })
    };
    assert!(read("2026-11-22T14:05:00Z", now(), &nowhere).is_ok());
    assert!(read("10 min ago", now(), &nowhere).is_ok());
    let refused = read("today 09:30", now(), &nowhere).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the time zone \"Mars/Olympus\" in TZ is not known on this machine"
    );
}

#[test]
fn a_target_is_a_word_or_a_time_in_microseconds_since_2000() {
    let target = |text| read_target(text, now(), &berlin);
    let time = target("2000-01-01T00:00:01.5Z").unwrap();
    assert_eq!(time.target, RecoveryTarget::Time(1_500_000));
    assert_eq!(target("latest").unwrap().target, RecoveryTarget::Latest);
    assert_eq!(
        target("xid:742").unwrap().target,
        RecoveryTarget::Transaction(742)
    );
    assert_eq!(
        target("1999-12-31T23:59:59Z").unwrap().target,
        RecoveryTarget::Time(-1_000_000)
    );
}

#[test]
fn a_target_is_echoed_resolved() {
    let echo = |text| read_target(text, now(), &berlin).unwrap().echo;
    assert_eq!(echo("latest"), "latest");
    assert_eq!(echo("2026-11-22T14:05:00Z"), "2026-11-22T14:05:00Z");
    assert_eq!(
        echo("yesterday 14:05"),
        "2026-11-22T13:05:00Z  (\"yesterday 14:05\", your zone Europe/Berlin)"
    );
    assert_eq!(echo("10 min ago"), "2026-11-23T09:50:00Z  (\"10 min ago\")");
    assert_eq!(echo("-10 min"), "2026-11-23T09:50:00Z  (\"-10 min\")");
}

#[test]
fn a_misspelt_word_is_noticed() {
    for word in ["lastest", "Latest", "LATEST"] {
        let failure = read_target(word, now(), &berlin).unwrap_err();
        assert_eq!(failure.code, Code::TimeUnreadable);
        assert_eq!(failure.help.last().unwrap(), "did you mean latest?");
    }
    let failure = read_target("0/3000028", now(), &berlin).unwrap_err();
    assert_eq!(failure.help.last().unwrap(), "did you mean lsn:0/3000028?");
    let failure = read_target("lsn:xyz", now(), &berlin).unwrap_err();
    assert_eq!(failure.code, Code::TimeUnreadable);
}
