//! age files for X25519 recipients (C2SP age.md), over aws-lc-rs primitives.
//!
//! Promise: what is written opens with `age -d`; what any age tool wrote for one or more X25519 recipients opens here.
//! Unknown versions, malformed stanzas, a wrong MAC, low-order points and trailing bytes are refused.
//! Not here: payloads of more than one chunk (a wrap has 200 bytes), passphrase and plugin recipients, armour.

mod format;
mod identity;

pub use identity::AgeIdentity;

use crate::key::derive;
use crate::random::{NoRandomness, random_bytes};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hmac;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use format::{Parsed, Share};
use zeroize::Zeroizing;

const STANZA_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const PAYLOAD_CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// 32 secret bytes.
type Secret = Zeroizing<[u8; 32]>;

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
    /// The file is not an age file of version 1.
    #[error("it is not an age file of version 1")]
    Malformed,
    /// The file was made for other kinds of recipients.
    #[error("the age file is for {kinds}, not for an X25519 recipient")]
    OtherKind {
        /// Which.
        kinds: String,
    },
    /// The file does not open.
    #[error("the age file does not open with this identity, or was changed")]
    Refused,
    /// More than one chunk of payload.
    #[error("the age file holds more than 65536 bytes")]
    TooLong,
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl AgeError {
    /// What a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Recipient { .. } => "give the public key that `age-keygen` printed",
            Self::Identity => "give the line AGE-SECRET-KEY-1… that `age-keygen` wrote, or its file",
            Self::OtherKind { .. } => "open it with `age -d` and the tool of that kind",
            Self::NoRandomness(_) => "run on a machine whose random number generator works",
            _ => "give the identity of the recipient that the wrap names",
        }
    }
}

/// The recipient `age1…` of an identity `AGE-SECRET-KEY-1…`.
pub fn age_recipient_of(identity: &str) -> Result<String, AgeError> {
    let secret = identities(identity)?.swap_remove(0);
    let public = public_of(&secret).ok_or(AgeError::Identity)?;
    let hrp = Hrp::parse("age").map_err(|_| AgeError::Identity)?;
    bech32::encode::<Bech32>(hrp, &public).map_err(|_| AgeError::Identity)
}

/// Refuses what nothing can be encrypted to.
pub fn check_age_recipient(recipient: &str) -> Result<(), AgeError> {
    let bad = || AgeError::Recipient {
        text: recipient.to_owned(),
    };
    let public = from_bech32("age", recipient).ok_or_else(bad)?;
    // A low-order point agrees on zeros with every secret, so any secret finds it.
    agreed(&[9; 32], &public).map(|_| ()).ok_or_else(bad)
}

/// Encrypts a small payload to a recipient.
pub(crate) fn encrypt(recipient: &str, payload: &[u8]) -> Result<Vec<u8>, AgeError> {
    let bad_recipient = || AgeError::Recipient {
        text: recipient.to_owned(),
    };
    if payload.len() > PAYLOAD_CHUNK {
        return Err(AgeError::TooLong);
    }
    let theirs = from_bech32("age", recipient).ok_or_else(bad_recipient)?;
    let (file_key, ephemeral): (Zeroizing<[u8; 16]>, Secret) =
        (random_bytes()?.into(), random_bytes()?.into());
    let share = public_of(&ephemeral).ok_or_else(bad_recipient)?;
    let shared = agreed(&ephemeral, &theirs).ok_or_else(bad_recipient)?;
    let body = seal_chacha(&stanza_key(&shared, &share, &theirs), [0; 12], file_key.as_ref());
    let header = format::header(&share, &body);
    let mac = hmac::sign(&header_key(file_key.as_ref()), header.as_bytes());
    let nonce: [u8; 16] = random_bytes()?;
    let sealed = seal_chacha(&payload_key(file_key.as_ref(), &nonce), LAST_CHUNK, payload);
    Ok([&format::closed(&header, mac.as_ref()), &nonce[..], &sealed].concat())
}

/// Refuses a file that no identity can open: one that is no age file, or holds another number of bytes than this.
pub(crate) fn check_form(file: &[u8], payload: usize) -> Result<(), AgeError> {
    let file = format::parse(file).ok_or(AgeError::Malformed)?;
    let is_whole = file.payload.len() == 16 + payload + TAG;
    let has_recipient = !file.shares.is_empty() || !file.others.is_empty();
    match is_whole && has_recipient {
        true => Ok(()),
        false => Err(AgeError::Malformed),
    }
}

/// Opens a small file with an identity, or with any of an identity file's.
pub(crate) fn decrypt(identity: &str, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let secrets = identities(identity)?;
    let file = format::parse(file).ok_or(AgeError::Malformed)?;
    if file.shares.is_empty() {
        return Err(AgeError::OtherKind {
            kinds: file.others.join(", "),
        });
    }
    let file_key = secrets
        .iter()
        .find_map(|secret| file_key_of(secret, &file.shares));
    open_payload(&file, &file_key.ok_or(AgeError::Refused)?)
}

fn file_key_of(secret: &Secret, shares: &[Share]) -> Option<Zeroizing<Vec<u8>>> {
    let mine = public_of(secret)?;
    let open = |share: &Share| {
        let shared = agreed(secret, &share.ephemeral)?;
        open_chacha(
            &stanza_key(&shared, &share.ephemeral, &mine),
            [0; 12],
            &share.body,
        )
    };
    shares.iter().find_map(open)
}

fn open_payload(file: &Parsed<'_>, file_key: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    hmac::verify(&header_key(file_key), file.authenticated, &file.mac).map_err(|_| AgeError::Refused)?;
    let (nonce, body) = file.payload.split_at_checked(16).ok_or(AgeError::Refused)?;
    if body.len() > PAYLOAD_CHUNK + TAG {
        return Err(AgeError::TooLong);
    }
    open_chacha(&payload_key(file_key, nonce), LAST_CHUNK, body).ok_or(AgeError::Refused)
}

/// The secrets in an identity or in an identity file, at least one; comments and empty lines are skipped.
fn identities(text: &str) -> Result<Vec<Secret>, AgeError> {
    let lines = text.lines().map(str::trim);
    let mut secrets = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        secrets.push(from_bech32("age-secret-key-", line).ok_or(AgeError::Identity)?);
    }
    if secrets.is_empty() {
        return Err(AgeError::Identity);
    }
    Ok(secrets)
}

fn from_bech32(prefix: &str, text: &str) -> Option<Secret> {
    let hrp = Hrp::parse(prefix).ok()?;
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    let bytes = Zeroizing::new(checked.byte_iter().collect::<Vec<u8>>());
    // Other padding bits would make a second spelling of the same key.
    let again = Zeroizing::new(bech32::encode::<Bech32>(hrp, &bytes).ok()?);
    let same = checked.hrp() == hrp && again.eq_ignore_ascii_case(text);
    same.then_some(())
        .and_then(|()| bytes.as_slice().try_into().ok())
        .map(Zeroizing::new)
}

fn public_of(secret: &[u8; 32]) -> Option<[u8; 32]> {
    let key = PrivateKey::from_private_key(&X25519, secret).ok()?;
    key.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// The shared secret; none for a low-order point, whose secret anybody can compute: aws-lc refuses zeros.
fn agreed(secret: &[u8; 32], public: &[u8; 32]) -> Option<Secret> {
    let key = PrivateKey::from_private_key(&X25519, secret).ok()?;
    let copy = |shared: &[u8]| shared.try_into().map(Zeroizing::new).map_err(|_| ());
    agree(&key, UnparsedPublicKey::new(&X25519, public), (), copy).ok()
}

fn stanza_key(shared: &[u8; 32], share: &[u8; 32], recipient: &[u8; 32]) -> Secret {
    derived(shared, &[&share[..], recipient].concat(), STANZA_INFO)
}

fn header_key(file_key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, derived(file_key, &[], b"header").as_ref())
}

fn payload_key(file_key: &[u8], nonce: &[u8]) -> Secret {
    derived(file_key, nonce, b"payload")
}

fn derived(ikm: &[u8], salt: &[u8], info: &[u8]) -> Secret {
    let mut key = Zeroizing::new([0; 32]);
    derive(ikm, salt, &[info], key.as_mut());
    key
}

/// The nonce of chunk 0, which is the last.
const LAST_CHUNK: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn chacha(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("ChaCha20-Poly1305 takes 32-byte keys"))
}

fn seal_chacha(key: &[u8; 32], nonce: [u8; 12], plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = plaintext.to_vec();
    let tag = chacha(key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .expect("ChaCha20-Poly1305 seals up to 256 GiB, and this is at most 64 KiB");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

fn open_chacha(key: &[u8; 32], nonce: [u8; 12], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = chacha(key)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes)
        .ok()?
        .len();
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests;
