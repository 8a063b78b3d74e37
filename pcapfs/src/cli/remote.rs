//! `pcapfs remote`: names of other machines.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{client, complete};
use crate::control::messages::StatusRequest;
use crate::control::messages::control_client::ControlClient;
use crate::failure::Failure;
use crate::output;
use crate::paths::absolute;
use crate::remote::certificate::Fingerprint;
use crate::remote::connect;
use crate::remote::credentials::Credentials;
use crate::remote::error::RemoteError;
use crate::remote::remotes::{self, Remote, RemoteAddress};

/// What to do with remotes.
#[derive(Debug, Args)]
pub(super) struct RemoteArguments {
    #[command(subcommand)]
    command: RemoteCommand,
}

#[derive(Debug, Subcommand)]
enum RemoteCommand {
    /// Give a machine a name
    Add {
        /// The name
        name: String,

        /// Where its daemon listens: pcap://HOST[:PORT], or pcap+unix:///PATH for a socket
        url: String,

        /// The file that `pcapfs identity issue` has made there, or a directory of this machine's
        /// identity [default: identity.pem beside the list of remotes]
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,

        /// Believe only this certificate, whatever its names and its authority
        #[arg(long, value_name = "HEX")]
        sha256: Option<Fingerprint>,

        /// For all users and the service: in /etc/pcapfs/remotes.toml
        #[arg(long)]
        system: bool,
    },
    /// List the machines: whether they answer, how fast, and their version
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget the name of a machine
    Remove {
        /// The name
        #[arg(add = ArgValueCandidates::new(complete::remotes))]
        name: String,

        /// From /etc/pcapfs/remotes.toml
        #[arg(long)]
        system: bool,
    },
}

/// `pcapfs remote`.
pub(super) fn run(arguments: &RemoteArguments) -> Result<(), Failure> {
    match &arguments.command {
        RemoteCommand::Add { name, url, identity, sha256, system } => {
            add(name, url, (identity.clone(), *sha256), *system)
        }
        RemoteCommand::List { json } => list(*json),
        RemoteCommand::Remove { name, system } => remove(name, *system),
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::Answer(error.to_string())
}

/// The list that a command changes.
fn file(system: bool) -> Result<PathBuf, Failure> {
    if system {
        return Ok(remotes::system_file());
    }
    remotes::user_file().ok_or_else(|| {
        failed("neither XDG_CONFIG_HOME nor HOME is set (or use --system, for all users)")
    })
}

fn add(
    name: &str,
    url: &str,
    (identity, sha256): (Option<PathBuf>, Option<Fingerprint>),
    system: bool,
) -> Result<(), Failure> {
    remotes::check_name(name).map_err(Failure::Argument)?;
    let address: RemoteAddress = url.parse().map_err(Failure::Argument)?;
    let file = file(system)?;
    let identity = match address {
        RemoteAddress::Unix(_) => None,
        RemoteAddress::Tls { .. } => {
            let default = || Some(file.with_file_name("identity.pem")).filter(|path| path.exists());
            let path = identity.or_else(default).ok_or_else(|| {
                Failure::Argument(
                    "--identity FILE is missing: the certificate that the other machine knows you by \
                     (it makes FILE with: pcapfs identity issue NAME)"
                        .to_owned(),
                )
            })?;
            let path = absolute(&path).map_err(Failure::System)?;
            let credentials = Credentials::of_path(&path).map_err(failed)?;
            let advice = "ask the other machine for another with: pcapfs identity issue";
            let whose = format!("the certificate in {}", path.display());
            credentials.facts().warning(&whose, advice).into_iter().for_each(output::say);
            Some(path)
        }
    };
    let remote = Remote { name: name.to_owned(), address, identity, sha256 };
    remotes::add(&file, remote).map_err(failed)
}

fn remove(name: &str, system: bool) -> Result<(), Failure> {
    let file = file(system)?;
    if remotes::remove(&file, name).map_err(failed)? {
        return Ok(());
    }
    let elsewhere = if system { None } else { Some(remotes::system_file()) };
    let elsewhere = elsewhere.filter(|file| {
        remotes::read(file).is_ok_and(|known| known.iter().any(|remote| remote.name == name))
    });
    if let Some(elsewhere) = elsewhere {
        let elsewhere = elsewhere.display();
        return Err(failed(format!("{name}: it is in {elsewhere} (remove it with --system)")));
    }
    Err(match connect::find(name) {
        Err(error) => Failure::Remote(Box::new(error)),
        Ok(_) => failed(format!("{name}: it is not in {}", file.display())),
    })
}

/// The answer of a remote.
struct RemoteAnswer {
    remote: Remote,
    /// The version there, and how long an answer takes.
    answer: Result<(String, Duration), RemoteError>,
}

fn list(as_json: bool) -> Result<(), Failure> {
    let known = remotes::load().map_err(failed)?;
    let answers = client::run(async {
        let mut asked = JoinSet::new();
        for (index, remote) in known.into_iter().enumerate() {
            asked.spawn(async move {
                let answer = ask(&remote).await;
                (index, RemoteAnswer { remote, answer })
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>())
    })?;
    let text = if as_json { array(&answers) } else { table(&answers) };
    output::print(&text).map_err(Failure::Output)
}

/// Asks a remote for its version, over a connection of its own.
async fn ask(remote: &Remote) -> Result<(String, Duration), RemoteError> {
    let channel = connect::connect(remote).await?;
    let mut client = ControlClient::new(channel);
    let begun = Instant::now();
    let request = StatusRequest { capture: String::new(), interval: 0 };
    let answered = async {
        let mut answers = client.status(request).await?.into_inner();
        answers.message().await
    };
    match tokio::time::timeout(connect::CONNECT, answered).await {
        Ok(Ok(answer)) => {
            let latency = begun.elapsed();
            let status = answer.map(|answer| answer.status).unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let version = status.get("version").and_then(Value::as_str).unwrap_or("unknown");
            Ok((version.to_owned(), latency))
        }
        Ok(Err(status)) => Err(connect::explain(remote, &status).await),
        Err(_) => Err(connect::silent(remote)),
    }
}

fn array(answers: &[RemoteAnswer]) -> String {
    let values: Vec<Value> = answers
        .iter()
        .map(|RemoteAnswer { remote, answer }| {
            let (version, latency) = match answer {
                Ok((version, latency)) => (Some(version), u64::try_from(latency.as_micros()).ok()),
                Err(_) => (None, None),
            };
            let error = answer.as_ref().err();
            json!({
                "name": remote.name,
                "url": remote.address.to_string(),
                "identity": remote.identity,
                "state": error.map_or("ok", |error| error.reason.word()),
                "latency_us": latency,
                "version": version,
                "error": error.map(ToString::to_string),
            })
        })
        .collect();
    format!("{}\n", Value::Array(values))
}

fn table(answers: &[RemoteAnswer]) -> String {
    let mut errors = String::new();
    let rows: Vec<[String; 5]> = answers
        .iter()
        .map(|RemoteAnswer { remote, answer }| {
            let (state, latency, version) = match answer {
                Ok((version, latency)) => {
                    let microseconds = latency.as_micros();
                    let (whole, tenths) = (microseconds / 1000, microseconds / 100 % 10);
                    ("ok", format!("{whole}.{tenths} ms"), version.clone())
                }
                Err(error) => {
                    errors.push_str(&format!("{error}\n"));
                    (error.reason.word(), String::new(), String::new())
                }
            };
            [remote.name.clone(), state.to_owned(), latency, version, remote.address.to_string()]
        })
        .collect();
    // The other side decides some of the text, and terminals obey control characters.
    (output::table(["NAME", "STATE", "LATENCY", "VERSION", "URL"], &rows) + &errors)
        .replace(|one: char| one.is_control() && one != '\n', "?")
}
