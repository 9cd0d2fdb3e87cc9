//! The configured keys, read and understood.
//!
//! Promise: what is wrong with a key is said with its place and never with the key; a warning about a place is told once.
//! Not here: opening anything with them (repository).

use crate::codes::Code;
use crate::config::KeySource;
use crate::failure::Failure;
use crate::secret::{Secret, SecretPlace};
use crate::session::Session;
use backstay_codec::{KeySet, Passphrase, SecretKey, Wrap, parse_master_key};
use zeroize::Zeroizing;

/// What an editor may put before a text: of UTF-8, and of UTF-16 in either order.
const BYTE_ORDER_MARKS: [&[u8]; 3] = [b"\xEF\xBB\xBF", b"\xFF\xFE", b"\xFE\xFF"];

/// A key in memory.
#[derive(Clone, Debug)]
pub enum Material {
    /// A raw key.
    Master(SecretKey),
    /// A passphrase.
    Passphrase(Passphrase),
    /// A public age recipient.
    Age(String),
    /// No encryption.
    None,
}

/// A key and the entry of the configuration that it came from.
#[derive(Clone, Debug)]
pub struct Key {
    /// The entry.
    pub source: KeySource,
    /// The key.
    pub material: Material,
}

impl Key {
    /// The public id by which the repository names it; none for a passphrase, whose id is in the repository.
    pub fn id(&self) -> Option<String> {
        match &self.material {
            Material::Master(key) => Some(key.master_key_id()),
            Material::Age(recipient) => Some(recipient.clone()),
            Material::Passphrase(_) | Material::None => None,
        }
    }
}

/// All keys of the configuration, in its order.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The keys.
    pub keys: Vec<Key>,
    /// What a person should know about their places; told already.
    pub warnings: Vec<String>,
}

/// Reads every key of the configuration.
pub async fn load(session: &mut Session) -> Result<Loaded, Failure> {
    let config = session.config()?;
    let mut loaded = Loaded {
        keys: Vec::new(),
        warnings: Vec::new(),
    };
    for key in &config.keys {
        let material = match &key.value {
            KeySource::Master(place) => {
                let secret = read(place, session, &mut loaded.warnings).await?;
                Material::Master(master(place, &secret)?)
            }
            KeySource::Passphrase(place) => {
                let secret = read(place, session, &mut loaded.warnings).await?;
                Material::Passphrase(passphrase(place, &secret)?)
            }
            KeySource::Age(recipient) => Material::Age(age(recipient)?),
            KeySource::None => Material::None,
        };
        loaded.keys.push(Key {
            source: key.value.clone(),
            material,
        });
    }
    Ok(loaded)
}

async fn read(
    place: &SecretPlace,
    session: &mut Session,
    warnings: &mut Vec<String>,
) -> Result<Secret, Failure> {
    let secret = place.read(session.environment()).await?;
    if let Some(warning) = &secret.warning {
        session.printer.warning(warning);
        warnings.push(warning.clone());
    }
    Ok(secret)
}

fn master(place: &SecretPlace, secret: &Secret) -> Result<SecretKey, Failure> {
    let refuse = |what: &str, help: &str| {
        Failure::new(
            Code::KeyMalformed,
            format!("no raw key from {place}: {what}"),
            help,
        )
    };
    let as_text =
        "save it as UTF-8 text without a byte order mark, and with nothing but the line that key new wrote";
    if BYTE_ORDER_MARKS.iter().any(|mark| secret.bytes.starts_with(mark)) {
        return Err(refuse(
            "it begins with a byte order mark (BOM), as an editor adds one",
            as_text,
        ));
    }
    let text = std::str::from_utf8(&secret.bytes).map_err(|_| refuse("it is not UTF-8 text", as_text))?;
    parse_master_key(text).map_err(|error| {
        let help = "bring back the right file from where you keep its copy; key new writes such a file";
        refuse(&error.to_string(), help)
    })
}

fn passphrase(place: &SecretPlace, secret: &Secret) -> Result<Passphrase, Failure> {
    match std::str::from_utf8(&secret.bytes) {
        Ok(text) => Ok(Passphrase::new(text.to_owned())),
        Err(_) => {
            let help = "write it as UTF-8 text, on one line";
            let message = format!("no passphrase from {place}: it is not text");
            Err(Failure::new(Code::KeyMalformed, message, help))
        }
    }
}

/// The recipient if something can be wrapped for it: a typing error must not wait for the first backup.
fn age(recipient: &str) -> Result<String, Failure> {
    match Wrap::age("a trial", recipient, &KeySet::default()) {
        Ok(_) => Ok(recipient.to_owned()),
        Err(error) => {
            let message = format!("the age recipient {recipient} cannot be used: {error}");
            let help = "copy the line that age-keygen printed as the public key";
            Err(Failure::new(Code::KeyMalformed, message, help))
        }
    }
}

/// A new raw key and the line that a key file holds.
pub fn new_master() -> Result<(SecretKey, Zeroizing<String>), Failure> {
    let key = SecretKey::generate().map_err(|error| {
        let help = "the system gives no random numbers: run again, or on another machine";
        Failure::new(Code::Other, "a key cannot be made", help).caused_by(&error)
    })?;
    let line = backstay_codec::print_master_key(&key);
    Ok((key, line))
}
