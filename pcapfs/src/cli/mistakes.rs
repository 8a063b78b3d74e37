//! Messages about a wrong command line: the mistake, and the words to write instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// clap's message, which is a paragraph, in one line like any other message. `words` are the
/// arguments after the program's name, and `program` is what they should be.
pub(super) fn said(error: &clap::Error, words: &[String], program: &clap::Command) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command (try: pcapfs --help)".to_owned();
    }
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let command = words.iter().find_map(|word| program.find_subcommand(word));
    let command = command.map(clap::Command::get_name);
    let help = command.map_or_else(String::new, |command| format!("{command} "));
    let mut advice: Vec<String> = suggestion(error).into_iter().collect();
    if advice.is_empty() && command == Some("mount") {
        advice.extend(of_mount(error, words));
    }
    advice.push(format!("try: pcapfs {help}--help"));
    format!("{line} ({})", advice.join("; "))
}

/// The word that was probably meant.
fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let found = kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(one) => Some(one.clone()),
        // The last one is the nearest.
        ContextValue::Strings(several) => several.last().cloned(),
        _ => None,
    })?;
    Some(format!("did you mean '{found}'?"))
}

/// Mistakes that people make with `mount`.
fn of_mount(error: &clap::Error, words: &[String]) -> Option<String> {
    let argument = |kind| match error.get(kind)? {
        ContextValue::String(argument) => Some(argument.clone()),
        _ => None,
    };
    let wrong = argument(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if !wrong.starts_with('-') => {
            let place = words.iter().position(|word| *word == wrong)?;
            let before = words.get(..place)?;
            let is_given = |flags: [&str; 2]| {
                before.iter().any(|word| flags.iter().any(|flag| word.starts_with(flag)))
            };
            // All words up to the next option, which were meant as one argument.
            let rest = words.get(place..)?.iter().take_while(|word| !word.starts_with('-'));
            let rest = rest.map(String::as_str).collect::<Vec<_>>().join(" ");
            if wrong.starts_with('/') {
                let source = before.last().map_or("eth0", String::as_str);
                Some(format!("the mount point comes first: pcapfs mount {wrong} -i {source}"))
            } else if is_given(["-c", "--capture"]) {
                Some(format!(
                    "source and filter are one argument, in quotes: -c ALIAS='SOURCE {rest}'"
                ))
            } else {
                Some(format!("a filter is one argument, in quotes: -f '{rest}'"))
            }
        }
        ErrorKind::ArgumentConflict if wrong.contains("--interface") => Some(
            "several are -c ALIAS=INTERFACE each: -c lan=eth0 -c wan='eth1 tcp port 80'".to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::command::Arguments;
    use super::*;

    #[test]
    fn a_mistake_leads_to_the_help_of_its_command() {
        let program = Arguments::command();
        for command in program.get_subcommands().map(clap::Command::get_name) {
            let words = [command, "--no-such-option"].map(str::to_owned);
            let typed = ["pcapfs"].into_iter().chain(words.iter().map(String::as_str));
            let error = Arguments::try_parse_from(typed).unwrap_err();
            let message = said(&error, &words, &program);
            assert!(message.ends_with(&format!("try: pcapfs {command} --help)")), "{message}");
        }
    }
}
