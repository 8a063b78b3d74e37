//! `pcapfs identity`: makes and shows the certificates with which machines know each other.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use clap_complete::engine::CompletionCandidate;
use serde_json::{Value, json};

use crate::daemon::options::number;
use crate::failure::Failure;
use crate::output;
use crate::remote::certificate::{CertificateFacts, date};
use crate::remote::credentials::Credentials;
use crate::remote::identity::{self, Identity, IdentityContents};
use crate::remote::write_secret;

/// What to do with an identity.
#[derive(Debug, Args)]
pub(super) struct IdentityArguments {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Debug, Subcommand)]
enum IdentityCommand {
    /// Make a certificate authority, and the certificate of this machine
    Init {
        /// Names and addresses under which other machines reach this one, with commas between them
        /// [default: its own name; localhost is always added]
        #[arg(long, value_name = "HOST,IP...", value_delimiter = ',',
              value_parser = identity::check_host_name)]
        name: Vec<String>,

        #[command(flatten)]
        place: IdentityPlace,

        #[command(flatten)]
        validity: Validity,
    },
    /// Make a certificate with its key for a client: one file, which is a secret
    Issue {
        /// Name of the client, as in [[remote.client]] of the configuration
        #[arg(value_name = "NAME")]
        client: String,

        #[command(flatten)]
        place: IdentityPlace,

        /// Write to FILE, which must not exist; - for standard output [default: NAME.pem]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,

        #[command(flatten)]
        validity: Validity,
    },
    /// Show certificates and when they expire
    Show {
        /// A file that `issue` has made [default: all certificates of the directory]
        #[arg(conflicts_with = "dir")]
        file: Option<PathBuf>,

        #[command(flatten)]
        place: IdentityPlace,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke the certificates of a client: it is refused, and open connections end within a second
    Revoke {
        /// Name of the client, or the SHA-256 of a certificate
        #[arg(value_name = "NAME", add = ArgValueCandidates::new(clients))]
        client: String,

        #[command(flatten)]
        place: IdentityPlace,
    },
}

/// The place of an identity.
#[derive(Debug, Args)]
struct IdentityPlace {
    /// Directory of the identity [default: /etc/pcapfs/identity]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl IdentityPlace {
    fn identity(&self) -> Identity {
        Identity::new(self.path())
    }

    fn path(&self) -> PathBuf {
        identity::directory(self.dir.as_deref())
    }
}

/// How long a certificate is valid.
#[derive(Debug, Args)]
struct Validity {
    /// Days for which the certificate is valid
    #[arg(long, value_name = "N", default_value_t = identity::DEFAULT_DAYS,
          value_parser = |text: &str| number(text, 1..=3650), allow_negative_numbers = true)]
    days: u32,
}

/// `pcapfs identity`.
pub(super) fn run(arguments: &IdentityArguments) -> Result<(), Failure> {
    match &arguments.command {
        IdentityCommand::Init { name, place, validity } => init(place, name, validity.days),
        IdentityCommand::Issue { client, place, output, validity } => {
            issue(place, client, output.as_deref(), validity.days)
        }
        IdentityCommand::Show { file: Some(file), json, .. } => show_file(file, *json),
        IdentityCommand::Show { file: None, place, json } => show(place, *json),
        IdentityCommand::Revoke { client, place } => revoke(place, client),
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::Answer(error.to_string())
}

fn init(place: &IdentityPlace, names: &[String], days: u32) -> Result<(), Failure> {
    let identity = place.identity();
    identity.create(names, days).map_err(failed)?;
    let IdentityContents { machine, .. } = identity.contents().map_err(failed)?;
    output::print(&format!(
        "{}: identity of {}, until {}, SHA-256 {}\n",
        place.path().display(),
        machine.names.join(", "),
        date(machine.not_after),
        machine.fingerprint,
    ))
    .map_err(Failure::Output)
}

fn issue(
    place: &IdentityPlace,
    client: &str,
    file: Option<&Path>,
    days: u32,
) -> Result<(), Failure> {
    let path = file.map_or_else(|| PathBuf::from(format!("{client}.pem")), Path::to_owned);
    let is_stdout = path == Path::new("-");
    if is_stdout && io::stdout().is_terminal() {
        return Err(Failure::Argument(
            "standard output is a terminal, and the file has a key: write it to a file with -o FILE"
                .to_owned(),
        ));
    }
    if !is_stdout && path.symlink_metadata().is_ok() {
        let path = path.display();
        return Err(failed(format!(
            "{path}: exists, and no key is overwritten (choose another -o)"
        )));
    }
    let issued = place.identity().issue(client, days).map_err(failed)?;
    let facts = &issued.facts;
    let text = format!(
        "certificate of {client}, until {}, SHA-256 {}",
        date(facts.not_after),
        facts.fingerprint
    );
    if issued.others > 0 {
        output::say(format_args!(
            "{client} has {} other valid certificates; revoke takes them all back, also the new one",
            issued.others
        ));
    }
    if is_stdout {
        output::say(format_args!("{text}"));
        return output::print(&issued.pem).map_err(Failure::Output);
    }
    write_secret(&path, &issued.pem)
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    output::print(&format!("{}: {text}\n", path.display())).map_err(Failure::Output)
}

fn revoke(place: &IdentityPlace, client: &str) -> Result<(), Failure> {
    let count = place.identity().revoke(client).map_err(failed)?;
    let text = match count {
        0 => format!("{client}: was revoked before\n"),
        1 => format!("{client}: 1 certificate revoked\n"),
        _ => format!("{client}: {count} certificates revoked\n"),
    };
    output::print(&text).map_err(Failure::Output)
}

fn show(place: &IdentityPlace, as_json: bool) -> Result<(), Failure> {
    let contents = place.identity().contents().map_err(failed)?;
    let IdentityContents { authority, machine, issued, revoked } = &contents;
    let mut rows = vec![row("authority", authority), row("machine", machine)];
    for one in issued {
        let back = revoked.iter().find(|other| other.fingerprint == one.fingerprint);
        rows.push(ShownCertificate {
            kind: "client",
            names: vec![one.name.clone()],
            fingerprint: one.fingerprint.to_string(),
            expires: one.time.clone(),
            revoked: back.map(|back| back.time.clone()),
        });
    }
    for other in revoked {
        if !issued.iter().any(|one| one.fingerprint == other.fingerprint) {
            rows.push(ShownCertificate {
                kind: "other",
                names: Vec::new(),
                fingerprint: other.fingerprint.to_string(),
                expires: String::new(),
                revoked: Some(other.time.clone()),
            });
        }
    }
    print(&rows, as_json)?;
    let warnings = [
        authority.warning("the authority", "make another identity in a new --dir"),
        machine.warning("the certificate of this machine", identity::RENEWAL),
    ];
    warnings.into_iter().flatten().for_each(output::say);
    Ok(())
}

fn show_file(file: &Path, as_json: bool) -> Result<(), Failure> {
    let credentials = Credentials::of_file(file).map_err(failed)?;
    let facts = credentials.facts();
    print(&[row("client", facts)], as_json)?;
    let advice = "ask for another with: pcapfs identity issue";
    facts.warning("this certificate", advice).into_iter().for_each(output::say);
    Ok(())
}

/// A certificate as it is shown.
struct ShownCertificate {
    kind: &'static str,
    names: Vec<String>,
    fingerprint: String,
    /// RFC 3339; empty if it is not known.
    expires: String,
    /// When it was revoked.
    revoked: Option<String>,
}

fn row(kind: &'static str, facts: &CertificateFacts) -> ShownCertificate {
    ShownCertificate {
        kind,
        names: facts.names.clone(),
        fingerprint: facts.fingerprint.to_string(),
        expires: facts.not_after.to_rfc3339(),
        revoked: None,
    }
}

fn print(rows: &[ShownCertificate], as_json: bool) -> Result<(), Failure> {
    let text = if as_json {
        let values: Vec<Value> = rows
            .iter()
            .map(|row| {
                let expires = Some(&row.expires).filter(|text| !text.is_empty());
                json!({"kind": row.kind, "names": row.names, "sha256": row.fingerprint,
                       "expires": expires, "revoked": row.revoked})
            })
            .collect();
        format!("{}\n", Value::Array(values))
    } else {
        let day = |text: &str| text.get(..10).unwrap_or_default().to_owned();
        let rows: Vec<[String; 5]> = rows
            .iter()
            .map(|row| {
                let state = row
                    .revoked
                    .as_deref()
                    .map_or_else(|| "valid".to_owned(), |when| format!("revoked {}", day(when)));
                let now = capture::clock::now().to_rfc3339();
                let is_over = !row.expires.is_empty() && row.expires < now;
                let state = if is_over { "expired".to_owned() } else { state };
                [
                    row.kind.to_owned(),
                    row.names.join(","),
                    state,
                    day(&row.expires),
                    row.fingerprint.clone(),
                ]
            })
            .collect();
        output::table(["KIND", "NAMES", "STATE", "UNTIL", "SHA-256"], &rows)
            .replace(|one: char| one.is_control() && one != '\n', "?")
    };
    output::print(&text).map_err(Failure::Output)
}

/// Names of clients of the default identity, to complete a word.
fn clients() -> Vec<CompletionCandidate> {
    let contents = Identity::new(identity::DEFAULT.into()).contents();
    let issued = contents.map(|contents| contents.issued).unwrap_or_default();
    issued.into_iter().map(|one| CompletionCandidate::new(one.name)).collect()
}
