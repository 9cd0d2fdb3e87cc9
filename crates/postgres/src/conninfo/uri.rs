//! `postgresql://` URIs, as libpq's manual defines them (34.1.1.2).
//!
//! Promise: the same pairs as the keyword form would give.
//! Not here: what the values mean.

use super::ConninfoError;
use super::pairs::Pairs;

/// The pairs of a URI whose scheme has been taken off.
pub(super) fn pairs(rest: &str) -> Result<Pairs, ConninfoError> {
    let mut pairs = Pairs::default();
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, database) = rest
        .split_once('/')
        .map_or((rest, ""), |(authority, path)| (authority, path));
    let hosts = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            put_login(&mut pairs, login)?;
            hosts
        }
        None => authority,
    };
    put_hosts(&mut pairs, hosts)?;
    put_filled(&mut pairs, "dbname", decoded(database)?)?;
    for parameter in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        put_parameter(&mut pairs, parameter)?;
    }
    Ok(pairs)
}

fn put_filled(pairs: &mut Pairs, keyword: &str, value: String) -> Result<(), ConninfoError> {
    if value.is_empty() {
        Ok(())
    } else {
        pairs.put(keyword, value)
    }
}

fn put_login(pairs: &mut Pairs, login: &str) -> Result<(), ConninfoError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    put_filled(pairs, "user", decoded(user)?)?;
    put_filled(pairs, "password", decoded(password)?)
}

fn put_hosts(pairs: &mut Pairs, hosts: &str) -> Result<(), ConninfoError> {
    if hosts.is_empty() {
        return Ok(());
    }
    let split = hosts
        .split(',')
        .map(host_and_port)
        .collect::<Result<Vec<_>, _>>()?;
    let (names, ports): (Vec<_>, Vec<_>) = split.into_iter().unzip();
    put_filled(pairs, "host", names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.put("port", ports.join(","))?;
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(String, String), ConninfoError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest
            .split_once(']')
            .ok_or_else(|| syntax("an address in [ ] does not end"))?;
        return Ok((
            address.to_owned(),
            decoded(after.strip_prefix(':').unwrap_or_default())?,
        ));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    Ok((decoded(host)?, decoded(port)?))
}

fn put_parameter(pairs: &mut Pairs, parameter: &str) -> Result<(), ConninfoError> {
    let (keyword, value) = parameter
        .split_once('=')
        .ok_or_else(|| syntax("a URI parameter without \"=\""))?;
    // JDBC's word, which libpq accepts too.
    match (decoded(keyword)?.as_str(), decoded(value)?) {
        ("ssl", value) if value == "true" => pairs.put("sslmode", "require".to_owned()),
        (keyword, value) => pairs.put(keyword, value),
    }
}

fn decoded(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
        match digits {
            [Some(high), Some(low)] if (high, low) != (0, 0) => bytes.push((high * 16 + low) as u8),
            _ => return Err(syntax("a % in the URI is not followed by two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| syntax("the URI holds bytes that are not UTF-8"))
}

fn syntax(what: &str) -> ConninfoError {
    ConninfoError::Syntax(what.to_owned())
}
