//! Events of a command that goes on for a while: text for people, and with `--json` an object in a
//! line for programs.

use capture::clock;
use serde::Serialize;

use crate::output;

/// A line of `--json`.
#[derive(Serialize)]
struct EventLine<'a, E> {
    time: String,
    #[serde(flatten)]
    event: &'a E,
}

/// Prints an event, as an object on standard output if `json` is true, and otherwise as `text` on
/// standard error. A program that reads these lines no more does not end the command.
pub(super) fn print<E: Serialize>(json: bool, event: &E, text: impl FnOnce() -> String) {
    if !json {
        output::say(text());
        return;
    }
    let line = serde_json::to_string(&EventLine { time: clock::now().to_rfc3339(), event });
    let _ = line.map(|line| output::print(&(line + "\n")));
}
