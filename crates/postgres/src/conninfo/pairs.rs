//! `keyword=value` words, as libpq's manual defines them (34.1.1.1).
//!
//! Promise: only keywords that we act on are accepted; the last of two equal keywords wins, as in libpq.
//! Not here: what the values mean.

use super::ConninfoError;

/// Keywords that we act on.
const KNOWN: [&str; 22] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "target_session_attrs",
    "channel_binding",
    "options",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "client_encoding",
];

/// Keywords of libpq whose promise (often one of security) we do not keep, so they are refused rather than ignored.
const UNSUPPORTED: [&str; 22] = [
    "require_auth",
    "requirepeer",
    "sslcrl",
    "sslcrldir",
    "sslcompression",
    "sslpassword",
    "sslcertmode",
    "sslsni",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "gssencmode",
    "gsslib",
    "gssdelegation",
    "krbsrvname",
    "service",
    "servicefile",
    "replication",
    "tcp_user_timeout",
    "load_balance_hosts",
    "min_protocol_version",
    "max_protocol_version",
];

/// Keywords with their values.
#[derive(Default)]
pub(super) struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    pub(super) fn from_words(text: &str) -> Result<Self, ConninfoError> {
        let mut pairs = Self::default();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (keyword, after) = keyword(rest)?;
            let (value, after) = value(keyword, after)?;
            pairs.put(keyword, value)?;
            rest = after.trim_start();
        }
        Ok(pairs)
    }

    pub(super) fn put(&mut self, keyword: &str, value: String) -> Result<(), ConninfoError> {
        let known = KNOWN
            .into_iter()
            .find(|known| *known == keyword)
            .ok_or_else(|| refusal(keyword))?;
        if known == "client_encoding" && !matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8") {
            return Err(ConninfoError::Value {
                keyword: known,
                value,
                expected: "UTF8",
            });
        }
        self.0.push((known, value));
        Ok(())
    }

    pub(super) fn get(&self, keyword: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| *known == keyword);
        found.map(|(_, value)| value.as_str())
    }
}

fn refusal(keyword: &str) -> ConninfoError {
    if UNSUPPORTED.contains(&keyword) {
        return ConninfoError::Unsupported(keyword.to_owned());
    }
    let nearest = KNOWN
        .into_iter()
        .map(|known| (distance(known, keyword), known))
        .min();
    let meant = nearest
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known);
    ConninfoError::Unknown {
        keyword: keyword.to_owned(),
        meant,
    }
}

/// Levenshtein distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let next = (diagonal + usize::from(a != *b))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[other.len()]
}

fn keyword(text: &str) -> Result<(&str, &str), ConninfoError> {
    let end = text
        .find(|c: char| c == '=' || c.is_whitespace())
        .unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    match rest.trim_start().strip_prefix('=') {
        Some(rest) if !keyword.is_empty() => Ok((keyword, rest.trim_start())),
        // The word may be a password that lost its keyword: it is not repeated.
        _ => Err(ConninfoError::Syntax(
            "a word without \"=\" (quote values that hold spaces: password='a b')".to_owned(),
        )),
    }
}

fn value<'a>(keyword: &str, text: &'a str) -> Result<(String, &'a str), ConninfoError> {
    let quoted = text.strip_prefix('\'');
    let body = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted.is_some() => return Ok((value, &body[at + 1..])),
            c if quoted.is_none() && c.is_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    match quoted {
        Some(_) => Err(ConninfoError::Syntax(format!(
            "the quoted value of \"{keyword}\" does not end"
        ))),
        None => Ok((value, "")),
    }
}
