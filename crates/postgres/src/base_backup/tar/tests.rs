//! Archives as servers send them, cut anywhere, and archives as nobody should send them.

use proptest::prelude::*;

use super::*;

/// A header as `tarCreateHeader` writes it.
struct Made {
    name: Vec<u8>,
    kind: u8,
    size: Vec<u8>,
    target: Vec<u8>,
    prefix: u8,
}

fn made(name: &str, kind: u8, size: u64) -> Made {
    Made {
        name: name.as_bytes().to_vec(),
        kind,
        size: format!("{size:011o} ").into_bytes(),
        target: Vec::new(),
        prefix: 0,
    }
}

impl Made {
    fn block(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, b"0000600 ");
        put(124, &self.size);
        put(136, b"14567654321 ");
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.target);
        put(257, b"ustar\x0000");
        put(345, &[self.prefix]);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o} \0").as_bytes());
        block
    }
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = made(name, b'0', content.len() as u64).block();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Events with adjacent data joined, so that cuts do not show.
fn read(chunks: impl IntoIterator<Item = Bytes>) -> Result<Vec<TarEvent>, PostgresError> {
    let mut reader = TarReader::default();
    let mut events: Vec<TarEvent> = Vec::new();
    for mut chunk in chunks {
        while let Some(event) = reader.next(&mut chunk)? {
            match (events.last_mut(), event) {
                (Some(TarEvent::Data(before)), TarEvent::Data(more)) => {
                    *before = [&before[..], &more[..]].concat().into()
                }
                (_, event) => events.push(event),
            }
        }
    }
    reader.finish(ArchiveTrailer::Required)?;
    Ok(events)
}

fn refusal(made: &Made) -> String {
    read([Bytes::from(made.block())]).unwrap_err().to_string()
}

#[test]
fn an_archive_gives_its_entries_in_order() {
    let link = Made {
        target: b"/srv/fast".to_vec(),
        ..made("pg_tblspc/16384/", b'2', 0)
    };
    let archive = [
        file("backup_label", b"START"),
        made("./pg_wal/", b'5', 0).block(),
        link.block(),
        vec![0; 1024],
    ]
    .concat();
    let events = read([Bytes::from(archive)]).unwrap();
    let entry = |path: &str, kind, size| {
        let path = EntryPath::new(path).unwrap();
        TarEvent::Entry(TarEntry {
            path,
            kind,
            size,
            mode: 0o600,
            modified: 0o14567654321,
        })
    };
    assert_eq!(
        events,
        [
            entry("backup_label", EntryKind::File, 5),
            TarEvent::Data(Bytes::from_static(b"START")),
            TarEvent::EntryEnd,
            entry("pg_wal", EntryKind::Directory, 0),
            TarEvent::EntryEnd,
            entry("pg_tblspc/16384", EntryKind::Link("/srv/fast".to_owned()), 0),
            TarEvent::EntryEnd,
        ]
    );
}

#[test]
fn names_and_kinds_that_could_do_harm_are_refused() {
    let names = [
        "/etc/passwd",
        "../x",
        "base/../../x",
        "base//1",
        "./../x",
        ".//etc/passwd",
        "././x",
        "..",
        "base/..",
    ];
    for name in names {
        let said = refusal(&made(name, b'0', 0));
        let name = name.strip_prefix("./").unwrap_or(name);
        assert!(
            said.starts_with(&format!("base backup: entry \"{name}\" refused: ")),
            "{said}"
        );
    }
    for kind in [b'1', b'3', b'4', b'6', b'7', b'L', b'K', b'x', b'g', b'S'] {
        assert_eq!(
            refusal(&made("base/1", kind, 0)),
            "base backup: entry \"base/1\" refused: it is neither a file nor a directory"
        );
    }
    for name in [
        "pg_wal/",
        "base/link",
        "pg_tblspc/abc",
        "pg_tblspc/",
        "pg_tblspc/1/2",
    ] {
        let link = Made {
            target: b"/srv".to_vec(),
            ..made(name, b'2', 0)
        };
        assert!(
            refusal(&link).ends_with("it is a symbolic link outside pg_tblspc"),
            "{name}"
        );
    }
    for target in ["relative", "/srv/../etc", ""] {
        let link = Made {
            target: target.as_bytes().to_vec(),
            ..made("pg_tblspc/1", b'2', 0)
        };
        assert!(
            refusal(&link).ends_with("its target is not an absolute path"),
            "{target}"
        );
    }
    assert_eq!(
        refusal(&Made {
            name: b"a\x1b[2J\xff".to_vec(),
            ..made("", b'7', 0)
        }),
        "base backup: entry \"a\\x1b[2J\\xff\" refused: it is neither a file nor a directory"
    );
    assert!(refusal(&made("", b'0', 0)).contains("empty"));
    assert!(
        refusal(&Made {
            prefix: b'x',
            ..made("a", b'0', 0)
        })
        .contains("continued")
    );
}

#[test]
fn blocks_that_are_no_headers_are_refused() {
    let mut flipped = made("base/1", b'0', 0).block();
    flipped[3] ^= 1;
    let mut unmarked = made("base/1", b'0', 0).block();
    unmarked[257] = b'v';
    for block in [flipped, unmarked] {
        let said = read([Bytes::from(block)]).unwrap_err().to_string();
        assert_eq!(
            said,
            "protocol violation: an archive of the base backup has a block that is no header"
        );
    }
    for size in [
        "00000000009 ",
        "            ",
        "7777777777-7",
        "\u{7f}00000000000",
    ] {
        let said = refusal(&Made {
            size: size.as_bytes().to_vec(),
            ..made("a", b'0', 0)
        });
        assert_eq!(
            said,
            "protocol violation: a number in an archive's header is malformed"
        );
    }
}

#[test]
fn sizes_in_base_256_are_read_and_bounded() {
    let mut size = vec![0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1];
    let mut reader = TarReader::default();
    let big = Made {
        size: size.clone(),
        ..made("big", b'0', 0)
    };
    let Some(TarEvent::Entry(entry)) = reader.next(&mut Bytes::from(big.block())).unwrap() else {
        panic!()
    };
    assert_eq!(entry.size, (2 << 32) + 1);
    size[1] = 1;
    assert!(
        refusal(&Made {
            size,
            ..made("huge", b'0', 0)
        })
        .contains("malformed")
    );
}

#[test]
fn an_archive_that_is_cut_short_or_goes_on_is_refused() {
    let whole = [file("a", &[7; 700]), vec![0; 1024]].concat();
    for length in (0..whole.len()).step_by(100) {
        let said = read([Bytes::copy_from_slice(&whole[..length])])
            .unwrap_err()
            .to_string();
        assert_eq!(
            said,
            "protocol violation: an archive of the base backup is cut short"
        );
    }
    let longer = [whole, vec![1]].concat();
    let said = read([Bytes::from(longer)]).unwrap_err().to_string();
    assert_eq!(said, "protocol violation: bytes follow the end of an archive");
    let mut reader = TarReader::default();
    let mut without_trailer = Bytes::from(file("a", b"x"));
    while reader.next(&mut without_trailer).unwrap().is_some() {}
    reader.finish(ArchiveTrailer::Absent).unwrap();
}

proptest! {
    #[test]
    fn any_cuts_give_the_same_events(
        contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..6),
        cuts in proptest::collection::vec(1usize..900, 0..40),
    ) {
        let mut archive: Vec<u8> = contents.iter().enumerate().flat_map(|(at, content)| file(&format!("f{at}"), content)).collect();
        archive.extend([0; 1024]);
        let whole = Bytes::from(archive);
        let mut rest = whole.clone();
        let mut chunks: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to((*cut).min(rest.len()))).collect();
        chunks.push(rest);
        prop_assert_eq!(read(chunks).unwrap(), read([whole]).unwrap());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), mark in any::<bool>()) {
        let mut bytes = bytes;
        if mark && bytes.len() >= BLOCK {
            bytes[257..262].copy_from_slice(b"ustar");
        }
        let _ = read([Bytes::from(bytes)]);
    }
}
