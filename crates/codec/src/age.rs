//! age files for one X25519 recipient (C2SP age.md), over aws-lc-rs primitives.
//!
//! Promise: what is written opens with `age -d`; what any age tool wrote for one or more X25519 recipients opens here.
//! Only small payloads: one wrap's lines. Unknown versions, other line forms, a wrong MAC, low-order points and
//! trailing bytes are refused. Stanzas of other recipients are skipped.
//! Not here: passphrase and plugin recipients, armor.

use crate::base64_text::{from_base64, to_base64};
use crate::key::derive;
use crate::random::{NoRandomness, random_bytes};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hmac;
use bech32::{Bech32, Hrp};
use zeroize::Zeroizing;

const VERSION_LINE: &str = "age-encryption.org/v1";
const STANZA_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const PAYLOAD_CHUNK: usize = 64 << 10;

/// An age file cannot be made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// The recipient is not one.
    #[error("{text:?} is not an age X25519 recipient: expected age1…")]
    Recipient {
        /// What was given.
        text: String,
    },
    /// The identity is not one. It is secret, so it is not shown.
    #[error("the age identity is not an X25519 identity: expected AGE-SECRET-KEY-1…")]
    Identity,
    /// The file does not open.
    #[error("the age file does not open with this identity, or was changed")]
    Refused,
    /// More than one chunk of payload.
    #[error("the age file holds more than a wrap does")]
    TooLong,
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Encrypts a small payload to a recipient.
pub fn encrypt(recipient: &str, payload: &[u8]) -> Result<Vec<u8>, AgeError> {
    let bad_recipient = || AgeError::Recipient {
        text: recipient.to_owned(),
    };
    if payload.len() > PAYLOAD_CHUNK {
        return Err(AgeError::TooLong);
    }
    let theirs = from_bech32("age", recipient).ok_or_else(bad_recipient)?;
    let file_key = Zeroizing::new(random_bytes::<16>()?);
    let ephemeral = Zeroizing::new(random_bytes::<32>()?);
    let share = public_of(&ephemeral).ok_or_else(bad_recipient)?;
    let shared = agreed(&ephemeral, &theirs).ok_or_else(bad_recipient)?;
    let mut body = file_key.to_vec();
    seal_chacha(&wrap_key(&shared, &share, &theirs), [0; 12], &mut body).ok_or(AgeError::Refused)?;
    let (share, body) = (unpadded(&share), unpadded(&body));
    let header = format!("{VERSION_LINE}\n-> X25519 {share}\n{body}\n---");
    let mac = unpadded(header_mac(file_key.as_ref(), header.as_bytes()).as_ref());
    let nonce: [u8; 16] = random_bytes()?;
    let mut sealed = payload.to_vec();
    seal_chacha(
        &payload_key(file_key.as_ref(), &nonce),
        last_chunk_nonce(),
        &mut sealed,
    )
    .ok_or(AgeError::Refused)?;
    Ok([format!("{header} {mac}\n").as_bytes(), &nonce, &sealed].concat())
}

/// Opens a small file with an identity.
pub fn decrypt(identity: &str, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let secret =
        from_bech32("age-secret-key-", &identity.trim().to_ascii_lowercase()).ok_or(AgeError::Identity)?;
    let secret = Zeroizing::new(secret);
    let mine = public_of(&secret).ok_or(AgeError::Identity)?;
    let (header, mac, rest) = split_header(file).ok_or(AgeError::Refused)?;
    let open = |(share, body): ([u8; 32], [u8; 32])| {
        let shared = agreed(&secret, &share)?;
        open_chacha(&wrap_key(&shared, &share, &mine), [0; 12], &body)
    };
    let file_key = x25519_stanzas(header)
        .and_then(|stanzas| stanzas.into_iter().find_map(open))
        .ok_or(AgeError::Refused)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, header_key(&file_key).as_ref());
    hmac::verify(&key, header.as_bytes(), &mac).map_err(|_| AgeError::Refused)?;
    let (nonce, body) = rest.split_at_checked(16).ok_or(AgeError::Refused)?;
    if body.len() > PAYLOAD_CHUNK + 16 {
        return Err(AgeError::TooLong);
    }
    open_chacha(&payload_key(&file_key, nonce), last_chunk_nonce(), body).ok_or(AgeError::Refused)
}

fn from_bech32(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let (hrp, bytes) = bech32::decode(text).ok()?;
    // `decode` accepts bech32m too; age is bech32 alone.
    let again = bech32::encode::<Bech32>(Hrp::parse(prefix).ok()?, &bytes).ok()?;
    (hrp.to_lowercase() == prefix && again == text.to_ascii_lowercase())
        .then_some(bytes)?
        .try_into()
        .ok()
}

fn public_of(secret: &[u8; 32]) -> Option<[u8; 32]> {
    let key = PrivateKey::from_private_key(&X25519, secret).ok()?;
    key.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// The shared secret; none for a low-order point, whose result would be all zeros.
fn agreed(secret: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let key = PrivateKey::from_private_key(&X25519, secret).ok()?;
    let copy = |shared: &[u8]| shared.try_into().map(Zeroizing::new).map_err(|_| ());
    let shared: Zeroizing<[u8; 32]> = agree(&key, UnparsedPublicKey::new(&X25519, public), (), copy).ok()?;
    (*shared != [0; 32]).then_some(shared)
}

fn wrap_key(shared: &[u8; 32], share: &[u8; 32], recipient: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    derive(
        shared,
        &[&share[..], recipient].concat(),
        &[STANZA_INFO],
        key.as_mut(),
    );
    key
}

fn header_key(file_key: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    derive(file_key, &[], &[b"header"], key.as_mut());
    key
}

fn header_mac(file_key: &[u8], header: &[u8]) -> hmac::Tag {
    hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, header_key(file_key).as_ref()),
        header,
    )
}

fn payload_key(file_key: &[u8], nonce: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    derive(file_key, nonce, &[b"payload"], key.as_mut());
    key
}

/// Chunk 0, which is the last.
fn last_chunk_nonce() -> [u8; 12] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
}

fn chacha(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .ok()
        .map(LessSafeKey::new)
}

fn seal_chacha(key: &[u8; 32], nonce: [u8; 12], bytes: &mut Vec<u8>) -> Option<()> {
    chacha(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), bytes)
        .ok()
}

fn open_chacha(key: &[u8; 32], nonce: [u8; 12], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = chacha(key)?
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes)
        .ok()?
        .len();
    bytes.truncate(length);
    Some(bytes)
}

fn unpadded(bytes: &[u8]) -> String {
    to_base64(bytes).trim_end_matches('=').to_owned()
}

fn from_unpadded(text: &str) -> Option<Vec<u8>> {
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    (!text.contains('='))
        .then(|| from_base64(&format!("{text}{padding}")))
        .flatten()
}

/// The header up to and with `---`, its MAC, and what follows.
fn split_header(file: &[u8]) -> Option<(&str, Vec<u8>, &[u8])> {
    let begins = file.windows(5).position(|window| window == b"\n--- ")?;
    let (header, rest) = file.split_at(begins + 4);
    let line = rest.iter().position(|b| *b == b'\n')?;
    let mac = from_unpadded(std::str::from_utf8(rest.get(1..line)?).ok()?)?;
    let header = std::str::from_utf8(header).ok()?;
    header
        .starts_with(&format!("{VERSION_LINE}\n"))
        .then_some((header, mac, rest.get(line + 1..)?))
}

/// The X25519 stanzas: ephemeral share and sealed file key; none if any line of the header has another form.
fn x25519_stanzas(header: &str) -> Option<Vec<([u8; 32], [u8; 32])>> {
    let mut lines = header.strip_suffix("\n---")?.split('\n').skip(1);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let arguments: Vec<&str> = line.strip_prefix("-> ")?.split(' ').collect();
        if !arguments.iter().all(|argument| is_argument(argument)) {
            return None;
        }
        let body = stanza_body(&mut lines)?;
        match arguments.as_slice() {
            ["X25519", share] => {
                found.push((from_unpadded(share)?.try_into().ok()?, body.try_into().ok()?));
            }
            ["X25519", ..] => return None,
            _ => {}
        }
    }
    Some(found)
}

/// The body of a stanza: lines of 64 characters, and a shorter one that ends it.
fn stanza_body<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Vec<u8>> {
    let mut text = String::new();
    loop {
        let line = lines.next()?;
        text.push_str(line);
        match line.len() {
            0..64 => return from_unpadded(&text),
            64 => {}
            _ => return None,
        }
    }
}

fn is_argument(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}
