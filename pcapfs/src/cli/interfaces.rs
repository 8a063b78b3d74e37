//! `pcapfs interfaces`: lists the interfaces there are to capture from.

use clap::Args;

use crate::failure::Failure;
use crate::output;

/// How the interfaces are shown.
#[derive(Debug, Args)]
pub(super) struct InterfacesRequested {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `pcapfs interfaces`.
pub(super) fn run(interfaces: &InterfacesRequested) -> Result<(), Failure> {
    let found = capture::source::interfaces().map_err(Failure::System)?;
    let text = if interfaces.json {
        serde_json::to_string_pretty(&found).map_err(|error| Failure::System(error.into()))? + "\n"
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|interface| {
                let state = match (interface.up, interface.running) {
                    (true, true) => "up",
                    (true, false) => "no carrier",
                    (false, _) => "down",
                };
                [interface.name.clone(), state.to_owned(), interface.addresses.join(" ")]
            })
            .collect();
        output::table(["INTERFACE", "STATE", "ADDRESSES"], &rows)
    };
    output::print(&text).map_err(Failure::Output)
}
