//! What may stand in the file, as it is written.
//!
//! Promise: every struct refuses keys that it does not know; every value remembers its place.
//! Not here: what it means (resolve).

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fmt;

/// What stands under `services`.
const SERVICES: &str = "services by name, such as services: { orders-db: { postgresql: \"host=localhost user=backstay dbname=postgres\" } }";

/// The version of the file, read before anything else so that a newer file is named as such.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a block of settings such as version: 1")]
pub(super) struct VersionOnly {
    pub version: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a block of settings such as version: 1")]
pub(super) struct RawConfig {
    #[serde(rename = "version")]
    _version: Spanned<u64>,
    pub repo: Option<Spanned<String>>,
    pub repository_id: Option<Spanned<String>>,
    pub keys: Option<Spanned<Vec<Spanned<RawKey>>>>,
    pub profile: Option<Spanned<String>>,
    pub objective: Option<RawObjective>,
    pub retention: Option<RawRetention>,
    pub services: Option<RawServices>,
}

/// The services by name.
#[derive(Debug, Default)]
pub(super) struct RawServices(pub BTreeMap<String, Spanned<RawService>>);

impl<'de> Deserialize<'de> for RawServices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawServices, D::Error> {
        // Whatever it is: asked for a map, the reader would refuse a list in its own words.
        deserializer.deserialize_any(ServicesVisitor)
    }
}

struct ServicesVisitor;

impl<'de> Visitor<'de> for ServicesVisitor {
    type Value = RawServices;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SERVICES)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawServices, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(RawServices)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<RawServices, E> {
        Ok(RawServices::default())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a key such as { file: ./backstay.key }")]
pub(super) struct RawKey {
    pub file: Option<Spanned<String>>,
    pub env: Option<Spanned<String>>,
    pub command: Option<Spanned<Vec<String>>>,
    pub passphrase: Option<Spanned<RawSecret>>,
    pub age: Option<Spanned<String>>,
    pub none: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "the place of a secret such as { file: ./passphrase }"
)]
pub(super) struct RawSecret {
    pub file: Option<Spanned<String>>,
    pub env: Option<Spanned<String>>,
    pub command: Option<Spanned<Vec<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "objectives such as { rpo: 1h, rto: 4h }")]
pub(super) struct RawObjective {
    pub rpo: Option<Spanned<String>>,
    pub rto: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "retention classes such as { weekly: 7y, daily: 1y, rest: 35d }"
)]
pub(super) struct RawRetention {
    pub weekly: Option<Spanned<String>>,
    pub daily: Option<Spanned<String>>,
    pub rest: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a service such as { postgresql: \"host=localhost user=backstay dbname=postgres\" }"
)]
pub(super) struct RawService {
    pub postgresql: Option<Spanned<String>>,
    pub slot: Option<Spanned<String>>,
    pub objective: Option<RawObjective>,
    pub retention: Option<RawRetention>,
    pub tablespaces: Option<BTreeMap<String, Spanned<String>>>,
}
