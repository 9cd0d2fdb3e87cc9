//! Takes out of an output what differs from run to run or from machine to machine: times, ids, positions, sizes,
//! durations, the minor version of the server, as whom root types a command of the server.

const UNITS: [&str; 8] = ["B", "KiB", "MiB", "GiB", "TiB", "s", "files", "free"];

/// The text with every such word masked and columns pushed together.
pub fn mask(text: &str) -> String {
    let mut out = String::new();
    for line in text.replace("runuser -u postgres -- ", "").split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let masked: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(at, word)| {
                let before = at.checked_sub(1).and_then(|before| words.get(before));
                minor_version(word, before).unwrap_or_else(|| mask_word(word, words.get(at + 1)))
            })
            .collect();
        out.push_str(&" ".repeat(indent));
        out.push_str(&masked.join(" "));
        out.push('\n');
    }
    out
}

/// `15.N` for the version after the name of the server; none for any other word.
fn minor_version(word: &str, before: Option<&&str>) -> Option<String> {
    let name = before?.trim_start_matches('(');
    let (major, rest) = word.split_once('.')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let is_version = matches!(name, "PostgreSQL" | "postgres") && digits > 0 && major.parse::<u32>().is_ok();
    is_version.then(|| format!("{major}.N{}", &rest[digits..]))
}

fn mask_word(word: &str, next: Option<&&str>) -> String {
    if next.is_some_and(|next| *next == "(55006)") {
        return "PID".to_owned();
    }
    if let Some(position) = word.strip_prefix("lsn:") {
        return format!("lsn:{}", mask_word(position, None));
    }
    let core = word.trim_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '/'));
    if core.is_empty() {
        return word.to_owned();
    }
    // The names below it are a system, a lineage, an hour and an epoch.
    if let Some((root, _)) = core.split_once("wal-archive/index/") {
        return word.replace(core, &format!("{root}wal-archive/index/INDEX"));
    }
    let unit = next.map(|next| next.trim_end_matches([',', ';', ')']));
    let last = core.rsplit('/').next().unwrap_or(core);
    match (
        class_of(core, unit),
        is_id(last),
        fits(last, "dddd-dd") && core.starts_with("facts/"),
    ) {
        (Some(class), ..) => word.replace(core, class),
        (None, true, _) => word.replace(last, "ID"),
        (None, _, true) => word.replace(last, "MONTH"),
        _ => word.to_owned(),
    }
}

fn class_of(core: &str, unit: Option<&str>) -> Option<&'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_time(core) {
        return Some("TIME");
    }
    if is_id(core) {
        return Some("ID");
    }
    if core
        .split_once('/')
        .is_some_and(|(high, low)| hex(high) && hex(low))
    {
        return Some("LSN");
    }
    if core.len() == 8 && fits(core, "dddd-Wdd") {
        return Some("WEEK");
    }
    if core.len() == 34 && hex(&core.replace(['/', '.'], "")) {
        return Some("BRANCH");
    }
    if core.len() >= 16 && hex(core) {
        return Some("HEX");
    }
    if digits(&core.replace('.', "")) && unit.is_some_and(|unit| UNITS.contains(&unit)) {
        return Some("N");
    }
    let is_duration = core
        .strip_suffix('s')
        .is_some_and(|length| digits(&length.replace(['h', 'm', 'd'], "")));
    is_duration.then_some("DURATION")
}

fn is_time(core: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd";
    core.len() >= 20 && core.ends_with('Z') && fits(core, pattern)
}

fn is_id(core: &str) -> bool {
    fits(core, "ddddddddTddddddZ-") && core.rsplit('-').next().is_some_and(|suffix| suffix.len() == 10)
}

fn fits(text: &str, pattern: &str) -> bool {
    let same = |(c, wanted): (char, char)| {
        if wanted == 'd' {
            c.is_ascii_digit()
        } else {
            c == wanted
        }
    };
    text.len() >= pattern.len() && text.chars().zip(pattern.chars()).all(same)
}

/// The JSON with every value in place of its type, so that a contract can be compared.
pub fn shape(json: &str) -> String {
    let value: serde_json::Value =
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    serde_json::to_string_pretty(&types(value)).unwrap() + "\n"
}

fn types(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, types(value)))
            .collect(),
        // One element stands for all: they are of one shape.
        Value::Array(elements) => elements.into_iter().take(1).map(types).collect(),
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "text".into(),
    }
}

#[test]
fn the_minor_version_of_a_server_is_masked_and_nothing_like_it() {
    assert_eq!(mask("version PostgreSQL 15.20\n"), "version PostgreSQL 15.N\n");
    assert_eq!(mask("main (postgres 15.18)\n"), "main (postgres 15.N)\n");
    assert_eq!(mask("version 15.18\n"), "version 15.18\n");
    assert_eq!(mask("PostgreSQL 15.\n"), "PostgreSQL 15.\n");
}
