//! Manifests as servers write them, cut anywhere and damaged anywhere.

use proptest::prelude::*;

use super::*;

fn manifest(version: &str) -> Vec<u8> {
    let mut text = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": {version}\n\"Files\": [\n\
         {{ \"Path\": \"backup_label\", \"Size\": 227, \"Last-Modified\": \"2026-11-23 21:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"01020304\" }},\n\
         {{ \"Encoded-Path\": \"62ff\", \"Size\": 0, \"Last-Modified\": \"2026-11-23 21:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }}\n\
         ],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n"
    );
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    text.push_str(&format!("\"Manifest-Checksum\": \"{hex}\"}}\n"));
    text.into_bytes()
}

fn read(chunks: impl IntoIterator<Item = Bytes>) -> Result<(Vec<ListedFile>, ManifestFacts), PostgresError> {
    let mut reader = ManifestReader::new();
    let mut files = Vec::new();
    for mut chunk in chunks {
        while let Some(file) = reader.next(&mut chunk)? {
            files.push(file);
        }
    }
    Ok((files, reader.finish()?))
}

#[test]
fn both_versions_are_read() {
    let (files, facts) = read([Bytes::from(manifest("1,"))]).unwrap();
    assert_eq!(
        files,
        [
            ListedFile {
                path: b"backup_label".to_vec(),
                size: 227,
                checksum: 0x0403_0201
            },
            ListedFile {
                path: b"b\xff".to_vec(),
                size: 0,
                checksum: 0
            },
        ]
    );
    let range = WalRange {
        timeline: Timeline(1),
        start: Lsn(0x200_0028),
        end: Lsn(0x200_0100),
    };
    assert_eq!(
        facts,
        ManifestFacts {
            system: None,
            ranges: vec![range]
        }
    );
    let (_, facts) = read([Bytes::from(manifest(
        "2,\n\"System-Identifier\": 7423474350493388827,",
    ))])
    .unwrap();
    assert_eq!(facts.system, Some(SystemIdentifier(7_423_474_350_493_388_827)));
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let whole = manifest("1,");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        // The checksum's own digits may be written in either case.
        assert!(
            read([Bytes::from(damaged)]).is_err(),
            "byte {at} was flipped unnoticed"
        );
        assert!(
            read([Bytes::copy_from_slice(&whole[..at])]).is_err(),
            "a cut at {at} was unnoticed"
        );
    }
}

#[test]
fn a_manifest_of_another_kind_says_which_line() {
    let said = |text: &str| {
        read([Bytes::copy_from_slice(text.as_bytes())])
            .unwrap_err()
            .to_string()
    };
    let prefix = "base backup: the server's manifest disagrees: ";
    assert_eq!(
        said("{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n"),
        format!("{prefix}line 1 cannot be read")
    );
    assert_eq!(
        said(&"x".repeat(70_000)),
        format!("{prefix}line 0 cannot be read")
    );
    let sha = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"00\" }\n";
    assert_eq!(said(sha), format!("{prefix}line 3 has no CRC-32C"));
}

proptest! {
    #[test]
    fn any_cuts_give_the_same_files(cuts in proptest::collection::vec(1usize..200, 0..30)) {
        let whole = Bytes::from(manifest("1,"));
        let mut rest = whole.clone();
        let mut chunks: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to((*cut).min(rest.len()))).collect();
        chunks.push(rest);
        prop_assert_eq!(read(chunks).unwrap(), read([whole]).unwrap());
    }
}
