//! Runs the program on a terminal: Python's `pty` is one.

use crate::program::{Place, Run};
use std::process::Command;

/// Waits for the question, types the answer, hands on what was said, and ends as the program did.
const TERMINAL: &str = r#"
import os, pty, sys
question, answer, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
said, typed = b"", False
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if not typed and question.encode() in said:
        os.write(terminal, answer.encode())
        typed = True
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(said.replace(b"\r\n", b"\n"))
sys.exit(os.waitstatus_to_exitcode(status))
"#;

/// What ends the input on a terminal.
pub const END_OF_INPUT: &str = "\x04";

/// Runs the program in `place` on a terminal and types `answer` when it asks `question`.
pub fn run_on_terminal(place: &Place, arguments: &[&str], question: &str, answer: &str) -> Run {
    let program = place.command(arguments);
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-c", TERMINAL, question, answer])
        .arg(program.get_program())
        .args(program.get_args());
    python.current_dir(&place.directory).env_clear();
    python.envs(
        program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    place.finish(python)
}
