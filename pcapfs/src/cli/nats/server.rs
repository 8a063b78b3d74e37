//! A server as the options name it: its address, how to log in, and what TLS is to check.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::ClientConfig;

use super::NatsAddress;
use super::login::NatsLogin;
use super::tls::{self, TlsFiles};
use crate::failure::Failure;

/// Options of commands that connect to a server.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct NatsOptions {
    /// NATS: file with credentials: one of nsc, or a seed, USER:PASSWORD or a token in one line
    #[arg(long, value_name = "FILE", global = true)]
    nats_creds: Option<PathBuf>,

    /// NATS: authorities that may have issued the server's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", global = true)]
    nats_ca: Option<PathBuf>,

    /// NATS: certificate to show to the server
    #[arg(long, value_name = "FILE", global = true)]
    nats_cert: Option<PathBuf>,

    /// NATS: key of that certificate
    #[arg(long, value_name = "FILE", global = true)]
    nats_key: Option<PathBuf>,
}

/// A server, and how to connect to it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct NatsServer {
    pub(super) address: NatsAddress,
    /// Where its user has credentials; those of the address without a file.
    credentials: Option<PathBuf>,
    files: TlsFiles,
    /// True if nothing may be sent without TLS.
    pub(super) wants_tls: bool,
}

impl fmt::Display for NatsServer {
    /// Without a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

impl NatsOptions {
    /// True if there are any.
    pub(in crate::cli) const fn is_used(&self) -> bool {
        let Self { nats_creds, nats_ca, nats_cert, nats_key } = self;
        nats_creds.is_some() || nats_ca.is_some() || nats_cert.is_some() || nats_key.is_some()
    }

    /// The server at this address. `is_insecure` accepts that other machines can read what is sent.
    ///
    /// # Errors
    /// The address or an option is wrong, or a file cannot be used.
    pub(in crate::cli) fn server(
        &self,
        address: NatsAddress,
        is_insecure: bool,
    ) -> Result<NatsServer, Failure> {
        let own = match (&self.nats_cert, &self.nats_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => {
                let why = "--nats-cert and --nats-key: one is of no use without the other";
                return Err(Failure::Argument(why.to_owned()));
            }
        };
        if address.credentials.is_some() && self.nats_creds.is_some() {
            let why = "--nats-creds: the address has credentials too; leave one of them out";
            return Err(Failure::Argument(why.to_owned()));
        }
        let wants_tls = address.is_tls || self.nats_ca.is_some() || own.is_some();
        if !wants_tls {
            address.check_privacy(is_insecure)?;
        }
        let files = TlsFiles { authorities: self.nats_ca.clone(), own };
        let server = NatsServer { address, credentials: self.nats_creds.clone(), files, wants_tls };
        // Files that cannot be used are reported before anything begins.
        server.login().map_err(Failure::Answer)?;
        if wants_tls {
            server.tls().map_err(Failure::Answer)?;
        }
        Ok(server)
    }
}

impl NatsServer {
    /// How to log in. The file is read for each connection: it may be replaced.
    ///
    /// # Errors
    /// It cannot be used; the reason is for people.
    pub(super) fn login(&self) -> Result<NatsLogin, String> {
        match &self.credentials {
            Some(path) => NatsLogin::of_file(path),
            None => Ok(NatsLogin::of_address(self.address.credentials.as_ref())),
        }
    }

    /// The configuration of TLS, with the files as they are now.
    ///
    /// # Errors
    /// One cannot be used; the reason is for people.
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        tls::config(&self.files)
    }
}
