//! Runs the built program in a directory of its own.

use crate::json_page::assert_described;
use backstay_testkit::pg::PgServer;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A directory that is removed when the test ends well.
pub struct Place {
    pub directory: PathBuf,
    program: PathBuf,
}

/// What a run left behind.
pub struct Run {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Place {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstay-it-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        Place {
            directory,
            program: env!("CARGO_BIN_EXE_backstay").into(),
        }
    }

    /// A place where another user finds a copy of the program too, which a checkout may hide from it.
    pub fn with_program(directory: PathBuf) -> Place {
        fs::create_dir_all(&directory).unwrap();
        let program = directory.join("backstay");
        // Not copied by this process: a child that another test is just starting would hold it open for writing, and a program
        // that is open for writing does not start.
        let mut copy = Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_backstay")).arg(&program);
        assert!(copy.status().unwrap().success());
        Place { directory, program }
    }

    /// A place whose service `main` is this server, which need not be there.
    pub fn of(connection: &str) -> Place {
        let place = Place::new();
        place.init(connection);
        place
    }

    /// The same place, with the service `main` of this server, which answers.
    #[track_caller]
    pub fn serving(self, server: &PgServer) -> Place {
        let run = self.init(&server.conninfo_text());
        assert_eq!(run.exit, 0, "{}{}", run.out, run.err);
        self
    }

    /// Makes everything for a service `main`; the check at its end may fail.
    pub fn init(&self, connection: &str) -> Run {
        self.finish(self.command(&["init", "main", "--postgresql", connection]))
    }

    /// A place with this configuration in `backstay.yaml`.
    pub fn with_config(config: impl AsRef<[u8]>) -> Place {
        let place = Place::new();
        place.write("backstay.yaml", config);
        place
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.join(name);
        fs::write(&path, content).unwrap();
        self.mode(name, 0o600);
    }

    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The program here, with nothing of the tester's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command
            .env_clear()
            .env("HOME", &self.directory)
            .env("USER", "tester")
            .env("TZ", "UTC");
        command
    }

    /// Runs the program here; `line` is split at spaces.
    #[track_caller]
    pub fn run(&self, line: &str) -> Run {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.finish(self.command(&arguments))
    }

    /// Runs it to its end; what it prints as JSON must be described.
    #[track_caller]
    pub fn finish(&self, mut command: Command) -> Run {
        let run = self.read(command.output().unwrap());
        assert_described(command.get_args(), &run.out);
        run
    }

    fn read(&self, output: Output) -> Run {
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&self.directory.display().to_string(), "/DIR")
        };
        Run {
            exit: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Run {
    /// Everything in one text, for a golden file.
    pub fn whole(&self, line: &str) -> String {
        let Run { exit, out, err } = self;
        format!(
            "$ backstay {line}\n{out}{}{err}# exit {exit}\n",
            if err.is_empty() { "" } else { "# standard error\n" }
        )
    }
}
