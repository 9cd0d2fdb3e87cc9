//! What the integration tests cannot see: services by name, and secrets in `Debug`.

use super::*;
use crate::environment::Fixed;

fn config(services: &[&str]) -> Config {
    let directory = std::env::temp_dir().join(format!(
        "backstay-config-{}-{}",
        std::process::id(),
        services.len()
    ));
    std::fs::create_dir_all(&directory).unwrap();
    let mut text = "version: 1\nrepo: file://./b\nkeys: [ { file: ./k } ]\nservices:\n".to_owned();
    for name in services {
        text += &format!("  {name}: {{ postgresql: \"host=h\" }}\n");
    }
    let path = directory.join("backstay.yaml");
    std::fs::write(&path, text).unwrap();
    let found = Found {
        path,
        origin: Origin::Default,
    };
    let config = load_from(&found, &Overrides::default(), &Fixed::default()).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    config
}

#[test]
fn a_service_that_is_unknown_is_answered_with_the_nearest() {
    let config = config(&["orders-db", "ledger"]);
    assert_eq!(config.service("ledger").unwrap().name.as_str(), "ledger");
    let failure = config.service("ordes-db").unwrap_err();
    assert_eq!(failure.code, Code::ServiceUnknown);
    assert_eq!(failure.message, "the configuration has no service \"ordes-db\"");
    assert_eq!(failure.help, ["did you mean orders-db?"]);
    assert_eq!(
        failure.places.last().unwrap(),
        &("services", "ledger, orders-db".to_owned())
    );
    let far = config.service("x").unwrap_err();
    assert_eq!(
        far.help,
        ["add it under services: in the configuration, or choose one that is there"]
    );
}

#[test]
fn a_configuration_may_have_no_services_and_says_so_when_asked_for_one() {
    let failure = config(&[]).service("orders-db").unwrap_err();
    assert_eq!(failure.help, ["add it under services: in the configuration"]);
}

#[test]
fn a_connection_string_does_not_show_its_password() {
    let directory = std::env::temp_dir();
    let found = Found {
        path: directory.join(format!("backstay-{}.yaml", std::process::id())),
        origin: Origin::Default,
    };
    let text = "version: 1\nrepo: file://./b\nkeys: [ { file: ./k } ]\nservices: { a: { postgresql: \"password=s3cret\" } }\n";
    std::fs::write(&found.path, text).unwrap();
    let config = load_from(&found, &Overrides::default(), &Fixed::default()).unwrap();
    std::fs::remove_file(&found.path).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let service = config.service("a").unwrap();
    assert_eq!(service.postgresql.value.to_string(), "password=***");
    assert_eq!(service.postgresql.value.expose(), "password=s3cret");
}
