//! The block, word for word.

#![allow(clippy::unwrap_used)]

use super::*;
use backstay_terms::Position;

const LIMITS: StandbyLimits = StandbyLimits {
    connections: 300,
    worker_processes: 8,
    wal_senders: 10,
    prepared_transactions: 0,
    locks_per_transaction: 64,
};

fn recovery(stop: RecoveryStop, delivery: WalDelivery) -> Recovery {
    Recovery {
        timeline: 3,
        stop,
        action: RecoveryAction::Promote,
        delivery,
        timeline_highest: 3,
    }
}

fn text(existing: &str, recovery: &Recovery, major: u32) -> String {
    String::from_utf8(with_block(existing.as_bytes(), recovery, &LIMITS, major).unwrap()).unwrap()
}

#[test]
fn the_block_names_timeline_and_target_and_cuts_all_ties() {
    let stop = RecoveryStop::After(Position(0x1_0000_0028));
    let expected = "work_mem = '4MB'
# backstay restore begins: what a restored copy recovers with
archive_mode = 'off'
archive_command = ''
archive_library = ''
archive_cleanup_command = ''
recovery_end_command = ''
recovery_min_apply_delay = '0'
promote_trigger_file = ''
primary_conninfo = ''
primary_slot_name = ''
synchronous_standby_names = ''
max_logical_replication_workers = '0'
listen_addresses = 'localhost'
log_directory = 'log'
hot_standby = 'on'
max_connections = '300'
max_worker_processes = '8'
max_wal_senders = '10'
max_prepared_transactions = '0'
max_locks_per_transaction = '64'
recovery_target = ''
recovery_target_name = ''
recovery_target_time = ''
recovery_target_xid = ''
recovery_target_lsn = '1/28'
recovery_target_inclusive = 'on'
recovery_target_timeline = '3'
recovery_target_action = 'promote'
restore_command = 'false'
# backstay restore ends
";
    assert_eq!(
        text("work_mem = '4MB'", &recovery(stop, WalDelivery::Placed), 15),
        expected
    );
}

#[test]
fn a_block_replaces_the_one_before() {
    let first = recovery(RecoveryStop::Before(Position(0x28)), WalDelivery::Placed);
    let second = recovery(
        RecoveryStop::Consistent,
        WalDelivery::Command(r"it's \%p".to_owned()),
    );
    let once = text("a = 1\n", &second, 16);
    assert!(once.contains(r"restore_command = 'it''s \\%p'"));
    assert!(once.contains("recovery_target = 'immediate'\n") && !once.contains("promote_trigger_file"));
    let twice = text(&format!("{}b = 2\n", text("a = 1\n", &first, 16)), &second, 16);
    assert_eq!(twice, once.replace("a = 1\n", "a = 1\nb = 2\n"));
}

#[test]
fn a_command_of_two_lines_is_refused() {
    let two = recovery(
        RecoveryStop::Consistent,
        WalDelivery::Command("false\nport = 1".to_owned()),
    );
    let error = with_block(b"", &two, &LIMITS, 15).unwrap_err();
    assert_eq!(
        error.to_string(),
        "setting restore_command: it holds a line break or another control character"
    );
}
