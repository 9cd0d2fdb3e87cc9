//! Connection strings as people write them.

use super::*;

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Conninfo, ConninfoError> {
    Conninfo::parse(text, &|name| {
        variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn read(text: &str) -> Conninfo {
    read_with(text, &[("USER", "me")]).unwrap()
}

fn refusal(text: &str) -> String {
    read_with(text, &[("USER", "me")]).unwrap_err().to_string()
}

fn hosts(conninfo: &Conninfo) -> Vec<String> {
    conninfo.hosts().iter().map(Host::display).collect()
}

#[test]
fn an_empty_string_means_the_socket_and_the_user() {
    let conninfo = read("");
    assert_eq!(hosts(&conninfo), ["/var/run/postgresql:5432"]);
    assert_eq!(
        (conninfo.user(), conninfo.database(), conninfo.application_name()),
        ("me", "me", "backstay")
    );
    assert_eq!(conninfo.ssl_mode(&conninfo.hosts()[0]), SslMode::Disable);
    assert_eq!(read_with("", &[]).unwrap_err(), ConninfoError::UserMissing);
}

#[test]
fn keywords_and_uris_mean_the_same() {
    let words = r"host = db1,db2  port=5433 user=backstay password='it\'s \\ x' dbname=app connect_timeout=1";
    let uri = "postgresql://backstay:it's%20%5C%20x@db1:5433,db2:5433/app?connect_timeout=1";
    for conninfo in [read(words), read(uri)] {
        assert_eq!(hosts(&conninfo), ["db1:5433", "db2:5433"]);
        assert_eq!((conninfo.user(), conninfo.database()), ("backstay", "app"));
        assert_eq!(conninfo.password.as_ref().unwrap().expose(), "it's \\ x");
        assert_eq!(conninfo.connect_timeout, Some(Duration::from_secs(2)));
        let shown = format!("{conninfo:?}");
        assert!(shown.contains("***") && !shown.contains("it's"), "{shown}");
    }
}

#[test]
fn uris_name_sockets_and_numeric_addresses() {
    assert_eq!(
        hosts(&read("postgresql:///db?host=/tmp&port=6000")),
        ["/tmp:6000"]
    );
    assert_eq!(hosts(&read("postgres://%2Ftmp%2Fs/db")), ["/tmp/s:5432"]);
    assert_eq!(
        hosts(&read("postgresql://[::1]:6000,10.0.0.1")),
        ["[::1]:6000", "10.0.0.1:5432"]
    );
    assert_eq!(read("postgresql://h/?ssl=true").ssl_mode, Some(SslMode::Require));
    assert_eq!(
        read("postgresql://u@h/?target_session_attrs=primary").target_session(),
        TargetSession::Primary
    );
}

#[test]
fn the_string_wins_over_variables_and_variables_over_defaults() {
    let variables = [
        ("PGHOST", "elsewhere"),
        ("PGPORT", "7000"),
        ("PGUSER", "other"),
        ("PGDATABASE", "otherdb"),
        ("PGPASSWORD", "secret"),
        ("PGSSLMODE", "require"),
        ("PGAPPNAME", "shown"),
        ("PGCONNECT_TIMEOUT", "0"),
        ("PGPASSFILE", "/etc/pgpass"),
        ("PGSSLROOTCERT", "/etc/root.crt"),
    ];
    let conninfo = read_with("host=here application_name=''", &variables).unwrap();
    assert_eq!(hosts(&conninfo), ["here:7000"]);
    assert_eq!(
        (conninfo.user(), conninfo.database(), conninfo.application_name()),
        ("other", "otherdb", "backstay")
    );
    assert_eq!(conninfo.password.as_ref().unwrap().expose(), "secret");
    assert_eq!(conninfo.ssl_mode(&conninfo.hosts()[0]), SslMode::Require);
    assert_eq!(conninfo.connect_timeout, None);
    assert_eq!(conninfo.passfile, Some("/etc/pgpass".into()));
    assert_eq!(conninfo.tls.root, Some("/etc/root.crt".into()));
}

#[test]
fn tls_is_verified_unless_bytes_stay_on_this_machine() {
    let modes: Vec<_> = ["10.0.0.1", "db", "localhost", "127.0.0.7", "::1", "/tmp"]
        .map(|host| read(&format!("host={host}")))
        .iter()
        .map(|conninfo| conninfo.ssl_mode(&conninfo.hosts()[0]))
        .collect();
    use SslMode::{Disable, Prefer, VerifyFull};
    assert_eq!(modes, [VerifyFull, VerifyFull, Prefer, Prefer, Prefer, Disable]);
}

#[test]
fn mistakes_are_named_and_passwords_are_not() {
    let cases = [
        ("hots=db", "unknown keyword \"hots\", did you mean \"host\"?"),
        ("database=x", "unknown keyword \"database\""),
        (
            "sslmod=require",
            "unknown keyword \"sslmod\", did you mean \"sslmode\"?",
        ),
        ("sslcrl=x", "keyword \"sslcrl\" is not supported"),
        (
            "host=db hunter2",
            "a word without \"=\" (quote values that hold spaces: password='a b')",
        ),
        (
            "password='hunter2",
            "the quoted value of \"password\" does not end",
        ),
        ("port=0", "port=\"0\" is not a port from 1 to 65535"),
        ("host=a,b,c port=1,2", "2 ports for 3 hosts"),
        (
            "sslmode=on",
            "sslmode=\"on\" is not disable, allow, prefer, require, verify-ca or verify-full",
        ),
        (
            "connect_timeout=soon",
            "connect_timeout=\"soon\" is not a whole number in range",
        ),
        ("client_encoding=LATIN1", "client_encoding=\"LATIN1\" is not UTF8"),
        ("postgresql://h/d?nonsense", "a URI parameter without \"=\""),
        (
            "postgresql://u%zz@h",
            "a % in the URI is not followed by two hexadecimal digits",
        ),
        ("postgresql://[::1/db", "an address in [ ] does not end"),
        ("hostaddr=db", "hostaddr=\"db\" is not a numeric address"),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected);
    }
}

#[test]
fn the_password_file_is_matched_field_by_field() {
    let file = std::env::temp_dir().join(format!("bs-pgpass-{}", std::process::id()));
    let text = "# comment\nbroken line\n*:5432:replication:me:first\ndb:*:app:me:se\\:cr\\\\et\nlocalhost:5432:*:*:sock\n\
                /tmp/s:*:*:*:other\n::1:*:*:*:never\n\\:\\:1:*:*:*:six\n";
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ask = |host: &str, database: &str, user: &str| {
        let conninfo = read(host);
        let query = PassfileQuery {
            host: &conninfo.hosts()[0],
            database,
            user,
        };
        match query.ask(&file) {
            PassfileAnswer::Password(password) => Some(password.expose().to_owned()),
            PassfileAnswer::Nothing => None,
            PassfileAnswer::Ignored(reason) => panic!("{reason}"),
        }
    };
    let found = [
        ask("host=any", "replication", "me"),
        ask("host=db port=6000", "app", "me"),
        ask("host=db port=6000", "app", "you"),
        ask("", "x", "y"),
        ask("host=/tmp/s", "x", "y"),
        ask("host=::1", "x", "y"),
    ];
    std::fs::remove_file(&file).unwrap();
    let expected = [
        Some("first"),
        Some("se:cr\\et"),
        None,
        Some("sock"),
        Some("other"),
        Some("six"),
    ];
    assert_eq!(found, expected.map(|password| password.map(str::to_owned)));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}", scheme in proptest::bool::ANY) {
        let text = if scheme { format!("postgresql://{text}") } else { text };
        let _ = read_with(&text, &[("USER", "me")]);
    }

    #[test]
    fn any_quoted_value_is_read_back(value in "\\PC{1,30}") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let conninfo = read(&format!("password='{quoted}' user=x"));
        proptest::prop_assert_eq!(conninfo.password.as_ref().map(Secret::expose), Some(value.as_str()));
    }
}
