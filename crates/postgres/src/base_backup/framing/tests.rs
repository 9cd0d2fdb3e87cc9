//! The conversations of both dialects, written by hand after the manual and what 15.18 sent.

use super::*;

fn row(values: &[Option<&'static str>]) -> Answer {
    Answer::Row(
        values
            .iter()
            .map(|value| value.map(|text| Bytes::from_static(text.as_bytes())))
            .collect(),
    )
}

fn data(kind: u8, rest: &[u8]) -> Answer {
    Answer::CopyData([&[kind], rest].concat().into())
}

fn complete() -> Answer {
    Answer::Complete("SELECT".to_owned())
}

fn opening() -> Vec<Answer> {
    vec![
        Answer::Columns(vec!["recptr".to_owned(), "tli".to_owned()]),
        row(&[Some("0/2000028"), Some("3")]),
        complete(),
        Answer::Columns(vec![]),
        row(&[Some("16385"), Some("/srv/fast"), Some("40")]),
        row(&[None, None, Some("30")]),
        complete(),
    ]
}

fn run(dialect: Dialect, answers: Vec<Answer>) -> Result<Vec<Framed>, PostgresError> {
    let mut framing = Framing::new(dialect);
    let mut all = Vec::new();
    for answer in answers {
        all.extend(framing.on(answer)?);
    }
    Ok(all)
}

fn expected(parts: Vec<Framed>) -> Vec<Framed> {
    let fast = Tablespace {
        oid: Some(16385),
        location: "/srv/fast".to_owned(),
        kilobytes: Some(40),
    };
    let base = Tablespace {
        oid: None,
        location: String::new(),
        kilobytes: Some(30),
    };
    let mut all = vec![
        Framed::Started {
            lsn: Lsn(0x200_0028),
            timeline: Timeline(3),
        },
        Framed::Tablespaces(vec![fast, base]),
    ];
    all.extend(parts);
    all.extend([
        Framed::Stopped {
            lsn: Lsn(0x200_0100),
            timeline: Timeline(3),
        },
        Framed::Ready,
    ]);
    all
}

fn closing() -> Vec<Answer> {
    vec![
        Answer::CopyDone,
        Answer::Columns(vec![]),
        row(&[Some("0/2000100"), Some("3")]),
        complete(),
        complete(),
        Answer::Ready,
    ]
}

#[test]
fn one_copy_holds_all_archives_and_the_manifest_since_15() {
    let mut answers = opening();
    answers.extend([
        Answer::CopyOut,
        data(b'n', b"16385.tar\0/srv/fast\0"),
        data(b'd', b"one"),
        data(b'p', &77u64.to_be_bytes()),
        data(b'n', b"base.tar\0\0"),
        data(b'd', b"two"),
        data(b'm', b""),
        data(b'd', b"{}"),
    ]);
    answers.extend(closing());
    let bytes = |text: &'static [u8]| Bytes::from_static(text);
    assert_eq!(
        run(Dialect::Parenthesised, answers).unwrap(),
        expected(vec![
            Framed::Archive(Some(16385)),
            Framed::Data(bytes(b"one")),
            Framed::Done(77),
            Framed::Archive(None),
            Framed::Data(bytes(b"two")),
            Framed::ManifestBegins,
            Framed::Manifest(bytes(b"{}")),
        ])
    );
}

#[test]
fn one_copy_for_each_archive_and_one_for_the_manifest_before_15() {
    let copy = |text: &'static str| [Answer::CopyOut, Answer::CopyData(text.into()), Answer::CopyDone];
    let mut answers = opening();
    answers.extend(copy("one").into_iter().chain(copy("two")));
    answers.extend([Answer::CopyOut, Answer::CopyData("{}".into())]);
    answers.extend(closing());
    assert_eq!(
        run(Dialect::Positional, answers).unwrap(),
        expected(vec![
            Framed::Archive(Some(16385)),
            Framed::Data("one".into()),
            Framed::Archive(None),
            Framed::Data("two".into()),
            Framed::ManifestBegins,
            Framed::Manifest("{}".into()),
        ])
    );
}

#[test]
fn what_does_not_belong_is_refused() {
    let after_opening = |more: Vec<Answer>| {
        let mut answers = opening();
        answers.push(Answer::CopyOut);
        answers.extend(more);
        run(Dialect::Parenthesised, answers).unwrap_err().to_string()
    };
    let cases = [
        (vec![data(b'd', b"x")], "a message of type 'd' in a base backup"),
        (vec![data(b'x', b"")], "a message of type 'x' in a base backup"),
        (
            vec![data(b'p', b"short")],
            "a message of type 'p' in a base backup",
        ),
        (vec![data(b'm', b"")], "a message of type 'm' in a base backup"),
        (
            vec![Answer::CopyData(Bytes::new())],
            "an empty message in a base backup",
        ),
        (
            vec![data(b'n', b"16386.tar\0/x\0")],
            "an archive \"16386.tar\" that was not announced",
        ),
        (
            vec![data(b'n', b"base.tar.zst\0\0")],
            "an archive \"base.tar.zst\" that was not announced",
        ),
        (
            vec![data(b'n', b"base.tar\0\0"), Answer::CopyDone],
            "a base backup ended without a manifest",
        ),
        (
            vec![Answer::Ready],
            "the server sent the end of the query where it does not belong",
        ),
        (vec![row(&[])], "the server sent a row where it does not belong"),
    ];
    for (answers, expected) in cases {
        assert_eq!(after_opening(answers), format!("protocol violation: {expected}"));
    }
    let early = run(Dialect::Parenthesised, vec![row(&[Some("nonsense"), Some("1")])]).unwrap_err();
    assert_eq!(
        early.to_string(),
        "protocol violation: a base backup's position cannot be read"
    );
}
