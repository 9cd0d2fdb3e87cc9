//! Takes secrets out of text that is going to be shown.
//!
//! Promise: passwords in connection strings and URIs, passphrases written in place of their file, age identities and
//! anything that looks like a key are replaced by `***`. It may hide too much, never too little of these.

const HIDDEN: &str = "***";

/// `text` as it may be shown.
pub fn redact(text: &str) -> String {
    let text = hide_values(text);
    let text = hide_userinfo(&text);
    hide_opaque_words(&text)
}

/// Hides what follows `password=`, `sslpassword=` and `passphrase:`.
fn hide_values(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    while let Some((start, end)) = next_value(&lower, from) {
        out.push_str(&text[from..start]);
        out.push_str(HIDDEN);
        from = end;
    }
    out.push_str(&text[from..]);
    out
}

/// Where the next secret value begins and ends. ASCII lower-casing keeps every byte in its place.
fn next_value(lower: &str, from: usize) -> Option<(usize, usize)> {
    let found = ["password", "passphrase"].iter().filter_map(|word| {
        let at = from + lower[from..].find(word)?;
        Some(at + word.len())
    });
    let after_word = found.min()?;
    let rest = &lower[after_word..];
    let gap = rest.len() - rest.trim_start_matches(['"', '\'', ' ']).len();
    match rest[gap..].chars().next() {
        Some('=' | ':') => {
            let value = &rest[gap + 1..];
            let blank = value.len() - value.trim_start().len();
            let start = after_word + gap + 1 + blank;
            // A block that names the place of the secret is not the secret.
            if lower[start..].starts_with('{') || lower[start..].is_empty() {
                return next_value(lower, start);
            }
            Some((start, start + value_length(&lower[start..])))
        }
        _ => next_value(lower, after_word),
    }
}

fn value_length(value: &str) -> usize {
    let quote = value.chars().next().filter(|c| *c == '"' || *c == '\'');
    if let Some(quote) = quote {
        let mut escaped = false;
        for (at, c) in value.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => return at + 1,
                _ => {}
            }
        }
        return value.len();
    }
    value.find([' ', '&', '"', '\n']).unwrap_or(value.len())
}

/// Hides the password in `scheme://user:password@host`.
fn hide_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail
            .find(|c: char| c.is_whitespace() || "\"'/?".contains(c))
            .unwrap_or(tail.len());
        let authority = &tail[..end];
        match authority
            .rsplit_once('@')
            .and_then(|(userinfo, _)| userinfo.split_once(':'))
        {
            Some((user, password)) => {
                out.push_str(user);
                out.push(':');
                out.push_str(HIDDEN);
                rest = &tail[user.len() + 1 + password.len()..];
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

/// Hides age identities and long words without the shape of a path or a sentence: keys in base 64 or hexadecimal.
fn hide_opaque_words(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        out.push_str(&rest[..start]);
        let tail = &rest[start..];
        let end = tail.find(|c| !is_part(c)).unwrap_or(tail.len());
        let word = &tail[..end];
        out.push_str(if is_opaque(word) { HIDDEN } else { word });
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

fn is_opaque(word: &str) -> bool {
    let has_digit = word.bytes().any(|b| b.is_ascii_digit());
    let is_path = word.starts_with('/') && word.matches('/').count() > 1;
    word.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-")
        || (word.len() >= 32 && has_digit && !is_path && !word.starts_with("age1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_keys_are_hidden_and_the_rest_is_shown() {
        let table = [
            ("host=h user=u dbname=d", "host=h user=u dbname=d"),
            ("host=h password=s3cret user=u", "host=h password=*** user=u"),
            ("password = 'a b\\'c' user=u", "password = *** user=u"),
            ("PASSWORD=x", "PASSWORD=***"),
            ("sslpassword=x&host=h", "sslpassword=***&host=h"),
            ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
            ("postgresql://u:p@q@h/d", "postgresql://u:***@h/d"),
            ("postgresql://u@h/d?password=x", "postgresql://u@h/d?password=***"),
            ("  - { passphrase: hunter2 }", "  - { passphrase: *** }"),
            ("  - { passphrase: \"two words\" }", "  - { passphrase: *** }"),
            (
                "  - { passphrase: { file: ./p } }",
                "  - { passphrase: { file: ./p } }",
            ),
            ("keys: [ AGE-SECRET-KEY-1QQQ ]", "keys: [ *** ]"),
            (
                "keys: [ { file: q2Vt1k9aLmN0pQrStUvWxYz0123456789ab/cdE+f0= } ]",
                "keys: [ { file: *** } ]",
            ),
            (
                "age: age1qyqszqgpqyqszqgpqyqszqgpqyqszqgp",
                "age: age1qyqszqgpqyqszqgpqyqszqgpqyqszqgp",
            ),
            (
                "/var/lib/backstay/keys/of/orders-db1.key",
                "/var/lib/backstay/keys/of/orders-db1.key",
            ),
            (
                "ein Passwort ohne Wert: password",
                "ein Passwort ohne Wert: password",
            ),
        ];
        for (text, shown) in table {
            assert_eq!(redact(text), shown);
        }
    }
}
