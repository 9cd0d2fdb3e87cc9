//! Rule: time, environment and output are asked for in one room each, and nothing is `unsafe`.
//!
//! Promise: a banned call outside its room is an offence with its line; calls in tests are not.
//! Not here: thread::sleep, which clippy.toml bans everywhere.

use crate::Offence;
use crate::source::{Role, SourceFile, line_of, words};

const OUTSIDE: &str = "the outside world is asked for in one room";
const UNSAFE: &str = "nothing is unsafe";

/// A call, the folder in which alone it may stand, and what others do instead.
struct Banned {
    call: &'static str,
    room: &'static str,
    remedy: &'static str,
}

const ASK_THE_CLOCK: &str = "ask the Clock that was passed in";
const PASS_IT_IN: &str = "read it in the binary and pass the value in";
const RETURN_IT: &str = "return a value for the binary to print, or emit a tracing event";

const BANNED: &[Banned] = &[
    Banned {
        call: "SystemTime::now",
        room: "crates/clock/",
        remedy: ASK_THE_CLOCK,
    },
    Banned {
        call: "Instant::now",
        room: "crates/clock/",
        remedy: ASK_THE_CLOCK,
    },
    Banned {
        call: "Timestamp::now",
        room: "crates/clock/",
        remedy: ASK_THE_CLOCK,
    },
    Banned {
        call: "Zoned::now",
        room: "crates/clock/",
        remedy: ASK_THE_CLOCK,
    },
    Banned {
        call: "env::var",
        room: "crates/backstay/",
        remedy: PASS_IT_IN,
    },
    Banned {
        call: "env::var_os",
        room: "crates/backstay/",
        remedy: PASS_IT_IN,
    },
    Banned {
        call: "env::vars",
        room: "crates/backstay/",
        remedy: PASS_IT_IN,
    },
    Banned {
        call: "env::vars_os",
        room: "crates/backstay/",
        remedy: PASS_IT_IN,
    },
    Banned {
        call: "println!",
        room: "crates/backstay/",
        remedy: RETURN_IT,
    },
    Banned {
        call: "print!",
        room: "crates/backstay/",
        remedy: RETURN_IT,
    },
    Banned {
        call: "eprintln!",
        room: "crates/backstay/",
        remedy: RETURN_IT,
    },
    Banned {
        call: "eprint!",
        room: "crates/backstay/",
        remedy: RETURN_IT,
    },
];

/// Banned calls of the product outside their room.
pub fn outside_their_room(sources: &[SourceFile]) -> Vec<Offence> {
    sources
        .iter()
        .filter(|file| file.role == Role::Product)
        .flat_map(calls_of)
        .collect()
}

fn calls_of(file: &SourceFile) -> Vec<Offence> {
    BANNED
        .iter()
        .filter(|banned| !file.path.starts_with(banned.room))
        .flat_map(|banned| {
            words(&file.product, banned.call).map(|at| Offence {
                place: place(file, at),
                rule: OUTSIDE,
                found: format!("{} outside {}", banned.call, banned.room),
                remedy: banned.remedy.to_owned(),
            })
        })
        .collect()
}

/// The keyword `unsafe`, in tests too.
pub fn unsafe_code(sources: &[SourceFile]) -> Vec<Offence> {
    sources
        .iter()
        .flat_map(|file| {
            words(&file.code, "unsafe").map(|at| Offence {
                place: place(file, at),
                rule: UNSAFE,
                found: "the keyword `unsafe`".to_owned(),
                remedy: "use a crate whose whole purpose is the safe form (rustix, zeroize)".to_owned(),
            })
        })
        .collect()
}

fn place(file: &SourceFile, at: usize) -> String {
    format!("{}:{}", file.path, line_of(&file.code, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sources;
    use crate::tree::TextFile;

    const CALLS: &str = "//! Planted.\nfn f() {\n    let a = SystemTime::now();\n    let b = std::env::var(\"X\");\n    \
                         println!(\"SystemTime::now\"); // Instant::now\n}\n";

    fn found(path: &str, text: &str) -> Vec<String> {
        let offences = outside_their_room(&sources(&[TextFile::planted(path, text)]));
        offences
            .into_iter()
            .map(|offence| format!("{} {}", offence.place, offence.found))
            .collect()
    }

    #[test]
    fn planted_calls_are_found_outside_their_room() {
        let expected = [
            "crates/engine/src/x.rs:3 SystemTime::now outside crates/clock/",
            "crates/engine/src/x.rs:4 env::var outside crates/backstay/",
            "crates/engine/src/x.rs:5 println! outside crates/backstay/",
        ];
        assert_eq!(found("crates/engine/src/x.rs", CALLS), expected);
    }

    #[test]
    fn each_room_may_call_what_it_is_for() {
        let of_clock = found("crates/clock/src/x.rs", CALLS);
        assert!(
            of_clock.iter().all(|offence| !offence.contains("SystemTime")),
            "{of_clock:?}"
        );
        assert_eq!(found("crates/backstay/src/x.rs", CALLS).len(), 1);
    }

    #[test]
    fn tests_and_test_support_may_call_what_they_need() {
        assert_eq!(found("crates/testkit/src/x.rs", CALLS), [""; 0]);
        assert_eq!(found("crates/engine/tests/it/main.rs", CALLS), [""; 0]);
        let inside = format!("#[cfg(test)]\nmod tests {{\n{CALLS}}}\n");
        assert_eq!(found("crates/engine/src/x.rs", &inside), [""; 0]);
    }

    #[test]
    fn planted_unsafe_is_found_even_in_a_test() {
        // The keyword is put together here, so that this file holds none.
        let text = format!(
            "#![forbid({0}_code)]\n// {0}\nfn f() {{\n    {0} {{ }}\n}}\n",
            concat!("un", "safe")
        );
        let offences = unsafe_code(&sources(&[TextFile::planted("crates/x/tests/it/main.rs", &text)]));
        let places: Vec<String> = offences.into_iter().map(|offence| offence.place).collect();
        assert_eq!(places, ["crates/x/tests/it/main.rs:4"]);
    }
}
