//! `[remote]`: the control service for other machines, and who may use it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::raw::{RemoteClientTable, RemoteTable};
use super::values::UserOrGroup;
use super::{ConfigError, ConfigurationReader};
use crate::fs::{user_id, user_name};
use crate::remote::DEFAULT_PORT;
use crate::remote::certificate::Fingerprint;
use crate::remote::identity;

/// The service for other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) files: IdentityFiles,
    pub(crate) clients: Vec<RemoteClient>,
}

/// The place of the certificates of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentityFiles {
    /// A directory of `pcapfs identity`.
    pub(crate) directory: PathBuf,
    /// Files of another authority, which count in place of the directory.
    pub(crate) paths: Option<IdentityPaths>,
}

/// Certificates that `pcapfs identity` has not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentityPaths {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The authority of the clients.
    pub(crate) authority: PathBuf,
    /// The list of revoked certificates.
    pub(crate) revoked: Option<PathBuf>,
}

/// One `[[remote.client]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteClient {
    pub(crate) choice: ClientChoice,
    /// Name of the user that the client maps to.
    pub(crate) user: String,
}

/// The certificates that an entry is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientChoice {
    /// Of the own authority, with this name.
    Name(String),
    /// This one, of any authority.
    Fingerprint(Fingerprint),
}

impl ConfigurationReader<'_> {
    /// Checks `[remote]`.
    pub(super) fn remote(
        &self,
        table: &Spanned<RemoteTable>,
    ) -> Result<RemoteSettings, ConfigError> {
        let (start, raw) = (table.span().start, table.get_ref());
        let listen = raw.listen.as_ref().ok_or_else(|| {
            let what = "[remote] without an address (write listen = \"192.0.2.1\", or \"0.0.0.0\")";
            self.at(start, what.to_owned())
        })?;
        let address = address(listen.get_ref()).map_err(|what| self.wrong(listen, what))?;
        let clients: Result<Vec<_>, _> =
            raw.client.iter().map(|client| self.remote_client(client)).collect();
        Ok(RemoteSettings { listen: address, files: self.files(raw, start)?, clients: clients? })
    }

    fn files(&self, raw: &RemoteTable, start: usize) -> Result<IdentityFiles, ConfigError> {
        let whole = |value: &Spanned<PathBuf>| self.whole_path(value);
        let directory = raw.identity.as_ref().map(whole).transpose()?;
        let (certificate, key, authority) = (&raw.certificate, &raw.key, &raw.authority);
        let paths = match (certificate, key, authority) {
            (None, None, None) => {
                if let Some(revoked) = &raw.revoked {
                    let what = "revoked: belongs to certificate, key and authority; an identity \
                                has its own list";
                    return Err(self.wrong(revoked, what.to_owned()));
                }
                None
            }
            (Some(certificate), Some(key), Some(authority)) => {
                if let Some(identity) = &raw.identity {
                    let what = "identity: either this, or certificate, key and authority";
                    return Err(self.wrong(identity, what.to_owned()));
                }
                Some(IdentityPaths {
                    certificate: whole(certificate)?,
                    key: whole(key)?,
                    authority: whole(authority)?,
                    revoked: raw.revoked.as_ref().map(whole).transpose()?,
                })
            }
            _ => {
                let what = "certificate, key and authority belong together: write all three, or \
                            identity = \"DIRECTORY\"";
                return Err(self.at(start, what.to_owned()));
            }
        };
        let directory = directory.unwrap_or_else(|| Path::new(identity::DEFAULT).to_owned());
        Ok(IdentityFiles { directory, paths })
    }

    fn remote_client(
        &self,
        table: &Spanned<RemoteClientTable>,
    ) -> Result<RemoteClient, ConfigError> {
        let (start, raw) = (table.span().start, table.get_ref());
        let choice = match (&raw.name, &raw.sha256) {
            (Some(name), None) => ClientChoice::Name(name.get_ref().clone()),
            (None, Some(sha256)) => {
                let fingerprint = sha256.get_ref().parse();
                ClientChoice::Fingerprint(fingerprint.map_err(|what| self.wrong(sha256, what))?)
            }
            _ => {
                let what = "a client has a name, or the sha256 of its certificate (write one)";
                return Err(self.at(start, what.to_owned()));
            }
        };
        let user = raw.user.as_ref().ok_or_else(|| {
            self.at(start, "a client without a user (write user = \"NAME\")".to_owned())
        })?;
        let uid = self.id(user, "user", user_id)?;
        let user = match user.get_ref() {
            UserOrGroup::Name(name) => name.clone(),
            // The groups of a user are found by name.
            UserOrGroup::Number(_) => user_name(uid),
        };
        Ok(RemoteClient { choice, user })
    }
}

/// Reads an address with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = plain.parse::<IpAddr>().map(|address| SocketAddr::new(address, DEFAULT_PORT));
    text.parse().or(alone).map_err(|_| {
        format!(
            "listen: '{text}' is no address of this machine (write \"192.0.2.1:2020\", \
             \"[2001:db8::1]:2020\", or \"0.0.0.0\" for all)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (text, read) in [
            ("192.0.2.1", "192.0.2.1:2020"),
            ("0.0.0.0:3030", "0.0.0.0:3030"),
            ("::", "[::]:2020"),
            ("[::1]", "[::1]:2020"),
            ("[::1]:3", "[::1]:3"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), read);
        }
        for wrong in ["", "eth0", "localhost:2020", "1.2.3.4:", ":2020", "1.2.3.4:99999"] {
            assert!(address(wrong).unwrap_err().contains("is no address"), "{wrong}");
        }
    }
}
