//! `pcapfs web`: captures, flows and HTTP for browsers and programs, over HTTP.
//!
//! It is a process of its own with the rights of the user who runs it: it reads through the control
//! socket and the mounted tree, whose permission bits decide what it sees. Each of its readers is
//! one more reader of the daemon, and a browser that does not read delays no other.
//!
//! ```text
//!   server ── connections ── routes ─┬── streams    savefiles, with their bounds ── daemon
//!      │                             ├── flows      pages of flows and HTTP ─┐
//!      │                             ├── events     the same as it comes ────┼── records ── tree
//!      │                             └── files      of flows ────────────────┘
//!      └── access: the kernel's word about the client, tokens, certificates
//! ```
//!
//! `records` is what is known of the logs of the tree; the tree and the control socket are in
//! [`super::outlet`].

mod access;
mod answer;
mod bounds;
mod byte_range;
mod capture_watch;
mod client_user;
mod cursor;
mod event_text;
mod events;
mod file_type;
mod files;
mod flow_index;
mod flows;
mod log;
mod page;
mod pages;
mod query;
mod records;
mod report;
mod routes;
mod server;
mod slots;
mod streams;
mod timeline;
mod tokens;
mod transaction_choice;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use nix::unistd::geteuid;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::client::{self, DaemonSocket};
use super::outlet::daemon::DaemonLink;
use super::savefile::TransferSignals;
use super::serve::tls::Acceptor;
use super::{exclude, listen_address};
use crate::failure::Failure;
use crate::remote::certificate::Fingerprint;
use crate::{memory, output};
use access::Access;
use report::Reporter;
use server::{ClientName, Server, ServerTls};
use slots::Slots;
use tokens::Tokens;

/// The address at which browsers connect.
const ADDRESS: &str = "127.0.0.1:8020";

/// Advice to a user who would send packets over a network in the clear.
const OPEN: &str = "everybody on the way there could read the packets; use 127.0.0.1 (and a reverse \
                    proxy, or ssh -L) or --tls, or add --insecure";

/// Savefile streams at a time: the daemon takes 64 connections of a user, and other commands need
/// some.
const STREAMS: usize = 48;

/// The same for root, who has more.
const STREAMS_OF_ROOT: usize = 160;

/// Savefile streams at a time of one client.
const STREAMS_OF_ONE: usize = 32;

/// A web server to be started.
#[derive(Debug, Args)]
pub(super) struct Web {
    /// Address and port at which browsers connect
    #[arg(long, value_name = "ADDR:PORT", default_value = ADDRESS)]
    listen: String,

    /// A name by which the server is called, beside localhost and its addresses; repeatable
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// A file with the token that lets in clients whom the kernel does not know, as often as they
    /// like [default: a token for one login each is printed]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Serve through TLS
    #[arg(long)]
    tls: bool,

    /// Directory or file with the certificate to show [default: /etc/pcapfs/identity]
    #[arg(long, value_name = "PATH", requires = "tls")]
    identity: Option<PathBuf>,

    /// Let in a client without a token if its certificate has this name and is of this machine's
    /// authority, or has this SHA-256; repeatable
    #[arg(long, value_name = "NAME|SHA256", requires = "tls", value_parser = client_name)]
    client: Vec<ClientName>,

    /// Serve at an address that other machines reach without TLS, so that everybody on the way can
    /// read the packets and the tokens
    #[arg(long)]
    insecure: bool,

    /// Print where it serves, and logins, as lines of JSON
    #[arg(long)]
    json: bool,
}

fn client_name(text: &str) -> Result<ClientName, String> {
    let digits = text.chars().filter(|one| *one != ':');
    // No name of a machine or person looks like that.
    let is_digest =
        digits.clone().count() == 64 && digits.clone().all(|one| one.is_ascii_hexdigit());
    match text {
        "" => Err("a name or a SHA-256 is missing".to_owned()),
        text if is_digest => text.parse::<Fingerprint>().map(ClientName::Fingerprint),
        text => Ok(ClientName::Name(text.to_owned())),
    }
}

/// `pcapfs web`.
pub(super) fn run(web: &Web, daemon: &DaemonSocket) -> Result<(), Failure> {
    let address = listen_address::read(&web.listen, web.insecure || web.tls, OPEN)?;
    let tls = tls(web)?;
    let (tokens, token) = match &web.token_file {
        Some(path) => (Tokens::of_file(path)?, None),
        None => Tokens::once().map(|(tokens, token)| (tokens, Some(token)))?,
    };
    memory::keep_freed();
    client::run(async {
        // Before it is ready, so that no signal ends it in another way.
        let mut signals = TransferSignals::new()?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| listen_address::failure(address, &error))?;
        let bound = listener.local_addr().map_err(Failure::System)?;
        let reporter = Reporter::new(web.json, url(bound, web.tls));
        let (stop, stopping) = watch::channel(false);
        let own = geteuid();
        let access = Access::new(own.as_raw(), bound.port(), &web.host, web.tls, tokens);
        let streams = if own.is_root() { STREAMS_OF_ROOT } else { STREAMS };
        let server = Arc::new(Server::new(
            access,
            DaemonLink::new(daemon.clone()),
            Slots::new(streams, STREAMS_OF_ONE),
            stopping,
            reporter,
            tls,
        ));
        if let Err(problem) = server.daemon.captures("").await {
            output::say(format_args!("warning: {}; it is asked again when needed", problem.text));
        }
        // Captures would store what it sends, and it would send that too.
        let excluded = exclude::keep_out(daemon, bound, None).await;
        server.reporter.ready(token.as_deref())?;
        tokio::select! {
            () = server.run(&listener, &mut signals, &stop) => {}
            () = server.captures.run(&server.daemon) => {}
            () = async {
                excluded.renew(daemon, bound).await;
                std::future::pending::<()>().await;
            } => {}
        }
        Ok(())
    })
}

fn tls(web: &Web) -> Result<Option<ServerTls>, Failure> {
    if !web.tls {
        return Ok(None);
    }
    let pinned: BTreeSet<Fingerprint> = web
        .client
        .iter()
        .filter_map(|client| match client {
            ClientName::Fingerprint(fingerprint) => Some(*fingerprint),
            ClientName::Name(_) => None,
        })
        .collect();
    let acceptor = Acceptor::taking_unnamed(web.identity.as_deref(), pinned)?;
    Ok(Some(ServerTls { acceptor, clients: web.client.clone() }))
}

/// The address of the page.
fn url(bound: SocketAddr, is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    if bound.ip().is_unspecified() {
        return format!("{scheme}://localhost:{}/", bound.port());
    }
    format!("{scheme}://{bound}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_named_by_name_or_digest() {
        let digest = "ab".repeat(32);
        assert!(matches!(client_name(&digest), Ok(ClientName::Fingerprint(_))));
        assert_eq!(client_name("laptop"), Ok(ClientName::Name("laptop".to_owned())));
        assert!(client_name("").is_err());
    }

    #[test]
    fn the_address_of_the_page_can_be_opened() {
        assert_eq!(url(([127, 0, 0, 1], 8020).into(), false), "http://127.0.0.1:8020/");
        assert_eq!(url(([0, 0, 0, 0, 0, 0, 0, 1], 1).into(), true), "https://[::1]:1/");
        assert_eq!(url(([0, 0, 0, 0, 0, 0, 0, 0], 1).into(), true), "https://localhost:1/");
    }
}
