//! What an age file refuses; the two directions against Debian's `age` are in tests/it/age.rs.

use super::*;

// age-keygen of Debian 12 made this pair for these tests.
const IDENTITY: &str = "AGE-SECRET-KEY-1TX5H2J8M55RDRXLWEMKDNVNT287NEM0KC6WX964A467D576YJRMQY5AAKR";
const RECIPIENT: &str = "age1htvq9t3xzsf6526saych3y7scmgmg2tsg3w0n8s6xsyn7z26n55q0v5mhr";
const OTHER: &str = "AGE-SECRET-KEY-1NLFEF4WPDAMM3MY4952QM83VGRTN60FK9E42YZT8JC34KQSW8CXQTHTLKA";

#[test]
fn an_identity_has_its_recipient() {
    assert_eq!(age_recipient_of(IDENTITY).unwrap(), RECIPIENT);
    let file = format!("# created: today\n# public key: {RECIPIENT}\n\n  {IDENTITY}\n");
    assert_eq!(age_recipient_of(&file).unwrap(), RECIPIENT);
    check_age_recipient(RECIPIENT).unwrap();
}

#[test]
fn a_file_opens_for_its_identity_alone() {
    let file = encrypt(RECIPIENT, b"a line\n").unwrap();
    assert_eq!(*decrypt(IDENTITY, &file).unwrap(), b"a line\n");
    assert_eq!(decrypt(OTHER, &file), Err(AgeError::Refused));
    assert_eq!(
        *decrypt(&format!("{OTHER}\n{IDENTITY}"), &file).unwrap(),
        b"a line\n"
    );
}

#[test]
fn payloads_up_to_a_chunk_are_given_back_and_longer_ones_refused() {
    for length in [0, 1, PAYLOAD_CHUNK] {
        let file = encrypt(RECIPIENT, &vec![7; length]).unwrap();
        assert_eq!(*decrypt(IDENTITY, &file).unwrap(), vec![7; length]);
    }
    assert_eq!(
        encrypt(RECIPIENT, &vec![7; PAYLOAD_CHUNK + 1]),
        Err(AgeError::TooLong)
    );
}

#[test]
fn every_flipped_cut_or_added_byte_is_refused() {
    let file = encrypt(RECIPIENT, b"a line\n").unwrap();
    for place in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[place] ^= 1 << bit;
            assert!(decrypt(IDENTITY, &changed).is_err(), "byte {place} bit {bit}");
        }
        assert!(decrypt(IDENTITY, &file[..place]).is_err(), "cut at {place}");
    }
    assert!(decrypt(IDENTITY, &[file.as_slice(), b"\0"].concat()).is_err());
}

#[test]
fn recipients_that_are_none_are_refused_by_name() {
    let low_order = bech32::encode::<Bech32>(Hrp::parse("age").unwrap(), &[0; 32]).unwrap();
    let bech32m = bech32::encode::<bech32::Bech32m>(Hrp::parse("age").unwrap(), &[9; 32]).unwrap();
    let short = bech32::encode::<Bech32>(Hrp::parse("age").unwrap(), &[9; 31]).unwrap();
    let mistyped = RECIPIENT.replacen('q', "p", 1);
    for text in [
        "", "age1", IDENTITY, "bc1qqqq", &low_order, &bech32m, &short, &mistyped,
    ] {
        let text = text.to_owned();
        assert_eq!(
            check_age_recipient(&text),
            Err(AgeError::Recipient { text: text.clone() })
        );
        assert_eq!(encrypt(&text, b"x"), Err(AgeError::Recipient { text }));
    }
}

#[test]
fn identities_that_are_none_are_refused_and_not_shown() {
    for text in [
        "",
        "# nothing",
        RECIPIENT,
        "AGE-SECRET-KEY-1QQQ",
        "AGE-PLUGIN-YUBIKEY-1QQQ",
    ] {
        let error = age_recipient_of(text).unwrap_err();
        assert_eq!(error, AgeError::Identity);
        assert!(text.is_empty() || !error.to_string().contains(text));
    }
}

#[test]
fn a_file_for_other_kinds_of_recipients_says_so() {
    let file = b"age-encryption.org/v1\n-> scrypt c2FsdA 18\nQUJD\n-> ssh-ed25519 a b\n\n--- QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\n";
    let kinds = "scrypt, ssh-ed25519".to_owned();
    assert_eq!(decrypt(IDENTITY, file), Err(AgeError::OtherKind { kinds }));
}

#[test]
fn stanzas_of_others_may_have_bodies_of_many_lines() {
    let (full, mac) = ("A".repeat(64), "A".repeat(43));
    for body in [
        format!("{full}\nQUJD\n"),
        format!("{full}\n\n"),
        format!("{full}\n{full}\nQUI\n"),
        "\n".to_owned(),
    ] {
        let file = format!("age-encryption.org/v1\n-> grease\n{body}-> more\n\n--- {mac}\npayload");
        let parsed = format::parse(file.as_bytes()).unwrap();
        assert_eq!(parsed.others, ["grease", "more"]);
        assert_eq!(parsed.payload, b"payload");
        assert!(parsed.authenticated.ends_with(b"\n---"));
    }
    let wide = format!("age-encryption.org/v1\n-> grease\n{full}A\n--- {mac}\n");
    assert!(format::parse(wide.as_bytes()).is_none());
}

#[test]
fn headers_in_another_spelling_are_malformed() {
    let file = encrypt(RECIPIENT, b"x").unwrap();
    let at = file.windows(4).position(|four| four == b"\n---").unwrap();
    let (header, rest) = (std::str::from_utf8(&file[..at]).unwrap(), &file[at..]);
    let spelled = [
        header.replace("/v1", "/v2"),
        header.replace('\n', "\r\n"),
        header.replace("-> X25519 ", "->X25519 "),
        header.replace("-> X25519 ", "-> X25519  "),
        header.replacen("\n->", "\n\n->", 1),
        format!("{header}="),
        format!("{header}\nstray"),
        format!("{header}\n-> X25519\n"),
        format!("{header}\n-> grease\u{e9}\n"),
    ];
    for header in spelled {
        let file = [header.as_bytes(), rest].concat();
        assert_eq!(decrypt(IDENTITY, &file), Err(AgeError::Malformed), "{header}");
    }
}

#[test]
fn a_low_order_share_in_a_file_is_refused() {
    let file = encrypt(RECIPIENT, b"x").unwrap();
    let text = file.iter().position(|byte| *byte == b'>').unwrap() + "> X25519 ".len();
    let mut planted = file;
    planted[text..text + 43].copy_from_slice(&[b'A'; 43]);
    assert_eq!(decrypt(IDENTITY, &planted), Err(AgeError::Refused));
}
