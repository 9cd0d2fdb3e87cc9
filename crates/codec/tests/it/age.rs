//! Files of Debian's `age`, both ways, and files that nobody honest writes.
//!
//! Promise: what docs/decisions/0001 says is refused is refused although everything else about the file is right.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{hkdf, hmac};
use backstay_codec::{AgeError, KeyClass, KeySet, Wrap, WrapError};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bech32::{Bech32, Hrp};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ENVELOPE: &str = "postgres/shop/20261123T020011Z-full-k3q7mz2abc";

fn all_keys() -> KeySet {
    KeySet::generate(&KeyClass::ALL).unwrap()
}

/// What is wrapped: the lines of a `none` wrap.
fn lines_of(keys: &KeySet) -> Vec<u8> {
    file_in(&Wrap::none(ENVELOPE, keys).unwrap())
}

fn fields_of(wrap: &Wrap) -> serde_json::Value {
    serde_json::from_slice(&wrap.to_json()).unwrap()
}

/// The age file in a wrap.
fn file_in(wrap: &Wrap) -> Vec<u8> {
    STANDARD
        .decode(fields_of(wrap)["wrap"].as_str().unwrap())
        .unwrap()
}

/// A wrap around an age file that somebody else made.
fn around(file: &[u8], recipient: &str, keys: &KeySet) -> Wrap {
    let mut fields = fields_of(&Wrap::none(ENVELOPE, keys).unwrap());
    fields["recipient"] = serde_json::json!({"kind": "age", "id": recipient});
    fields["wrap"] = STANDARD.encode(file).into();
    Wrap::from_json(fields.to_string().as_bytes()).unwrap()
}

/// An identity that `age-keygen` made, in a file.
struct Identity {
    path: PathBuf,
    secret: String,
    recipient: String,
}

impl Identity {
    fn new(name: &str) -> Identity {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("age-{name}-{}", std::process::id()));
        let text = String::from_utf8(run("age-keygen", &[], b"").unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
        let secret = text.lines().last().unwrap().to_owned();
        let recipient = text
            .lines()
            .find_map(|line| line.strip_prefix("# public key: "))
            .unwrap();
        Identity {
            path,
            secret,
            recipient: recipient.to_owned(),
        }
    }

    fn decrypt(&self, file: &[u8]) -> Result<Vec<u8>, String> {
        run("age", &["-d", "-i", self.path.to_str().unwrap()], file)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn run(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn debians_age_opens_our_wrap_with_its_own_identity_alone() {
    let (mine, other) = (Identity::new("ours"), Identity::new("ours-other"));
    let keys = all_keys();
    let wrap = Wrap::age(ENVELOPE, &mine.recipient, &keys).unwrap();
    assert_eq!(mine.decrypt(&file_in(&wrap)), Ok(lines_of(&keys)));
    assert!(other.decrypt(&file_in(&wrap)).is_err());
    assert_eq!(wrap.open_age(ENVELOPE, &mine.secret), Ok(keys));
    assert_eq!(wrap.open_age(ENVELOPE, &other.secret), Err(WrapError::Refused));
    assert!(matches!(
        wrap.open_age("postgres/other/x", &mine.secret),
        Err(WrapError::OtherRecipient { .. })
    ));
}

#[test]
fn a_file_of_debians_age_for_several_recipients_opens_for_each() {
    let identities = ["one", "two", "three"].map(|name| Identity::new(&format!("several-{name}")));
    let stranger = Identity::new("several-stranger");
    let keys = all_keys();
    let arguments: Vec<&str> = identities
        .iter()
        .flat_map(|i| ["-r", i.recipient.as_str()])
        .collect();
    let file = run("age", &arguments, &lines_of(&keys)).unwrap();
    for identity in &identities {
        let wrap = around(&file, &identity.recipient, &keys);
        assert_eq!(wrap.open_age(ENVELOPE, &identity.secret), Ok(keys.clone()));
    }
    let wrap = around(&file, &identities[0].recipient, &keys);
    assert_eq!(wrap.open_age(ENVELOPE, &stranger.secret), Err(WrapError::Refused));
}

#[test]
fn a_changed_shortened_or_lengthened_age_file_is_refused() {
    let mine = Identity::new("changed");
    let keys = all_keys();
    let file = run("age", &["-r", &mine.recipient], &lines_of(&keys)).unwrap();
    let refused = |file: &[u8], what: &str| {
        let answer = around(file, &mine.recipient, &keys).open_age(ENVELOPE, &mine.secret);
        // A changed kind of recipient is one that we do not know.
        let refused = answer == Err(WrapError::Refused);
        let unknown = matches!(answer, Err(WrapError::Age(AgeError::OtherKind { .. })));
        assert!(refused || unknown, "{what}: {answer:?}");
    };
    for place in 0..file.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = file.clone();
            changed[place] ^= bit;
            refused(&changed, &format!("bit {bit:#x} of byte {place}"));
        }
        refused(&file[..place], &format!("the first {place} bytes"));
    }
    refused(&[&file[..], b"\0"].concat(), "a byte after the payload");
    refused(&[&file[..], &file[..]].concat(), "a second file after the first");
    refused(
        &[&file[..], &[0; 70_000]].concat(),
        "a second chunk of the payload",
    );
}

#[test]
fn keys_with_other_ids_than_the_wrap_states_are_refused() {
    let mine = Identity::new("ids");
    let file = run("age", &["-r", &mine.recipient], &lines_of(&all_keys())).unwrap();
    let wrap = around(&file, &mine.recipient, &all_keys());
    assert_eq!(wrap.open_age(ENVELOPE, &mine.secret), Err(WrapError::OtherKeys));
}

#[test]
fn armoured_files_are_refused() {
    let mine = Identity::new("armour");
    let keys = all_keys();
    let file = run("age", &["-a", "-r", &mine.recipient], &lines_of(&keys)).unwrap();
    let answer = around(&file, &mine.recipient, &keys).open_age(ENVELOPE, &mine.secret);
    assert_eq!(answer, Err(WrapError::Refused));
}

#[test]
fn what_is_no_recipient_or_no_identity_is_refused_without_showing_the_identity() {
    let mine = Identity::new("texts");
    let keys = all_keys();
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA";
    for text in [
        "",
        "age1",
        &mine.secret,
        &mine.recipient.replace("age1w", "age1x"),
        ssh,
    ] {
        let (answer, valid) = (Wrap::age(ENVELOPE, text, &keys), text == mine.recipient);
        assert_eq!(answer.is_ok(), valid, "{text:?}");
    }
    let wrap = Wrap::age(ENVELOPE, &mine.recipient, &keys).unwrap();
    for text in ["", "AGE-SECRET-KEY-1", &mine.recipient] {
        let answer = wrap.open_age(ENVELOPE, text);
        assert_eq!(answer, Err(WrapError::Age(AgeError::Identity)), "{text:?}");
    }
}

/// Everything that a file for one X25519 recipient is made of; each part may be made wrong.
struct Forge {
    recipient: [u8; 32],
    version: String,
    share: [u8; 32],
    shared: [u8; 32],
    stanza: fn(&str, &str) -> String,
    mac_key_info: &'static [u8],
    payload: Vec<u8>,
}

impl Forge {
    fn honest(identity: &Identity, payload: Vec<u8>) -> Forge {
        let (_, recipient) = bech32::decode(&identity.recipient).unwrap();
        let recipient: [u8; 32] = recipient.try_into().unwrap();
        let ephemeral = PrivateKey::from_private_key(&X25519, &[9; 32]).unwrap();
        let share = ephemeral.compute_public_key().unwrap();
        let theirs = UnparsedPublicKey::new(&X25519, recipient);
        let shared = agree(&ephemeral, theirs, (), |bytes| Ok(bytes.try_into().unwrap())).unwrap();
        Forge {
            recipient,
            version: "age-encryption.org/v1".into(),
            share: share.as_ref().try_into().unwrap(),
            shared,
            stanza: |share, body| format!("-> X25519 {share}\n{body}\n"),
            mac_key_info: b"header",
            payload,
        }
    }

    fn file(&self) -> Vec<u8> {
        let file_key = [0x4B; 16];
        let salt = [self.share, self.recipient].concat();
        let wrap_key = derived(&self.shared, &salt, b"age-encryption.org/v1/X25519");
        let body = sealed(wrap_key, 0, &file_key);
        let text = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let stanza = (self.stanza)(&text(&self.share), &text(&body));
        let header = format!("{}\n{stanza}---", self.version);
        let mac_key = derived(&file_key, &[], self.mac_key_info);
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key), header.as_bytes());
        let nonce = [7; 16];
        let payload = sealed(derived(&file_key, &nonce, b"payload"), 1, &self.payload);
        let header = format!("{header} {}\n", text(mac.as_ref()));
        [header.as_bytes(), &nonce, &payload].concat()
    }
}

fn derived(key: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let mut output = [0; 32];
    let info = [info];
    let okm = prk.expand(&info, hkdf::HKDF_SHA256).unwrap();
    okm.fill(&mut output).unwrap();
    output
}

fn sealed(key: [u8; 32], last_byte_of_nonce: u8, plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 12];
    nonce[11] = last_byte_of_nonce;
    let cipher = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let mut bytes = plain.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher
        .seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes)
        .unwrap();
    bytes
}

/// Files that are right but for one thing: `forge` makes it wrong.
fn forged(name: &str, forge: impl Fn(&mut Forge)) -> (Result<Vec<u8>, String>, Result<KeySet, WrapError>) {
    let mine = Identity::new(&format!("forged-{name}"));
    let keys = all_keys();
    let mut parts = Forge::honest(&mine, lines_of(&keys));
    forge(&mut parts);
    let file = parts.file();
    let ours = around(&file, &mine.recipient, &keys).open_age(ENVELOPE, &mine.secret);
    (mine.decrypt(&file), ours)
}

#[test]
fn a_forged_file_with_nothing_wrong_opens_everywhere() {
    let (theirs, ours) = forged("honest", |_| {});
    assert!(theirs.is_ok() && ours.is_ok(), "{theirs:?} {ours:?}");
    let other_stanza_first =
        |share: &str, body: &str| format!("-> grease x y\nQUJD\n-> X25519 {share}\n{body}\n");
    let (theirs, ours) = forged("grease", |parts| parts.stanza = other_stanza_first);
    assert!(theirs.is_ok() && ours.is_ok(), "{theirs:?} {ours:?}");
}

#[test]
fn unknown_versions_wrong_macs_and_low_order_points_are_refused_everywhere() {
    type Change = fn(&mut Forge);
    let cases: [(&str, Change); 4] = [
        ("version", |parts| parts.version = "age-encryption.org/v2".into()),
        ("mac", |parts| parts.mac_key_info = b"another key"),
        // Both give an all-zero shared secret, which anybody can compute.
        ("zero", |parts| (parts.share, parts.shared) = ([0; 32], [0; 32])),
        ("one", |parts| {
            parts.share = [0; 32];
            parts.share[0] = 1;
            parts.shared = [0; 32];
        }),
    ];
    for (name, change) in cases {
        let (theirs, ours) = forged(name, change);
        assert_eq!(ours, Err(WrapError::Refused), "{name}");
        assert!(theirs.is_err(), "{name}");
    }
}

#[test]
fn other_forms_of_lines_are_refused() {
    type Stanza = fn(&str, &str) -> String;
    let cases: [(&str, Stanza); 8] = [
        ("more-arguments", |s, b| format!("-> X25519 {s} more\n{b}\n")),
        ("two-spaces", |s, b| format!("-> X25519  {s}\n{b}\n")),
        ("no-arrow", |s, b| format!("X25519 {s}\n{b}\n")),
        ("padding", |s, b| format!("-> X25519 {s}=\n{b}\n")),
        ("padded-body", |s, b| format!("-> X25519 {s}\n{b}=\n")),
        ("carriage-returns", |s, b| format!("-> X25519 {s}\r\n{b}\r\n")),
        ("empty-line", |s, b| format!("-> X25519 {s}\n\n{b}\n")),
        ("line-after-body", |s, b| format!("-> X25519 {s}\n{b}\nQUJD\n")),
    ];
    for (name, stanza) in cases {
        let (theirs, ours) = forged(name, |parts| parts.stanza = stanza);
        assert_eq!(ours, Err(WrapError::Refused), "{name}");
        assert!(theirs.is_err(), "{name}");
    }
}

#[test]
fn a_recipient_of_another_kind_is_refused_by_name() {
    let (theirs, ours) = forged("another-word", |parts| {
        parts.stanza = |share, body| format!("-> x25519 {share}\n{body}\n");
    });
    let kinds = "x25519".to_owned();
    assert_eq!(ours, Err(WrapError::Age(AgeError::OtherKind { kinds })));
    assert!(theirs.is_err(), "{theirs:?}");
}

#[test]
fn nothing_is_wrapped_for_a_low_order_point() {
    let text = |bytes: [u8; 32]| bech32::encode::<Bech32>(Hrp::parse("age").unwrap(), &bytes).unwrap();
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one] {
        assert!(matches!(
            Wrap::age(ENVELOPE, &text(point), &all_keys()),
            Err(WrapError::Age(AgeError::Recipient { .. }))
        ));
    }
}
