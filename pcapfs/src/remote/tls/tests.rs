//! Handshakes in memory, with certificates that were made for them.

use std::io::{Read, Write};
use std::path::Path;

use rcgen::{CertificateParams, DnType, IsCa, KeyPair};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::remote::identity::{Identity, REVOKED};

struct Place {
    folder: TempDir,
    identity: Identity,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new(folder.path().to_owned());
        identity.create(&["hall-a.example".to_owned()], 10).unwrap();
        Self { folder, identity }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn client(&self, name: &str) -> Credentials {
        let path = self.path().join(format!("{name}.pem"));
        let issued = self.identity.issue(name, 10).unwrap();
        crate::remote::secret_file::write_new(&path, 0o600, issued.pem.as_bytes()).unwrap();
        Credentials::of_file(&path).unwrap()
    }

    fn server(&self, pinned: &[Fingerprint]) -> Arc<ServerConfig> {
        let credentials = Credentials::of_directory(self.path()).unwrap();
        let revoked = Some(Arc::new(RevocationList::new(self.path().join(REVOKED))));
        let pinned = pinned.iter().copied().collect();
        server(&credentials, PeerTrust { pinned, revoked, takes_unnamed: false }, None, &[HTTP2])
            .unwrap()
    }
}

/// A certificate that signs itself, valid for these days from now on.
fn self_signed(folder: &Path, days: i64) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["stranger".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "stranger");
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = OffsetDateTime::now_utc() - Duration::days(400);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
    let certificate = params.self_signed(&key).unwrap();
    let path = folder.join(format!("self-signed-{days}.pem"));
    let pem = certificate.pem() + &key.serialize_pem();
    crate::remote::secret_file::write_new(&path, 0o600, pem.as_bytes()).unwrap();
    Credentials::of_file(&path).unwrap()
}

/// Runs a handshake, and then a byte from the server to the client. Returns how each side ended.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Result<HandshakeKind, Error>, Result<HandshakeKind, Error>) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut ends = (None, None);
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        if !wire.is_empty() && ends.0.is_none() {
            server.read_tls(&mut wire.as_slice()).unwrap();
            match server.process_new_packets() {
                Ok(_) if !server.is_handshaking() => {
                    server.writer().write_all(b"!").unwrap();
                    ends.0 = server.handshake_kind().map(Ok);
                }
                Ok(_) => {}
                Err(error) => ends.0 = Some(Err(error)),
            }
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        if !wire.is_empty() && ends.1.is_none() {
            client.read_tls(&mut wire.as_slice()).unwrap();
            match client.process_new_packets() {
                Ok(_) => {
                    let mut byte = [0; 1];
                    if client.reader().read(&mut byte).is_ok_and(|read| read == 1) {
                        ends.1 = client.handshake_kind().map(Ok);
                    }
                }
                Err(error) => ends.1 = Some(Err(error)),
            }
        }
    }
    let none = || Err(Error::HandshakeNotComplete);
    (ends.0.unwrap_or_else(none), ends.1.unwrap_or_else(none))
}

fn failure<T>(result: Result<T, Error>) -> TlsFailure {
    TlsFailure::from(&result.err().unwrap())
}

#[test]
fn both_sides_believe_the_same_authority_and_nothing_is_resumed() {
    let place = Place::new();
    let (server, client) = (place.server(&[]), client(&place.client("laptop-7"), None, &[HTTP2]));
    let client = client.unwrap();
    for name in ["hall-a.example", "localhost", "127.0.0.1", "::1"] {
        for _ in 0..2 {
            let (server, client) = handshake(&server, &client, name);
            assert_eq!(server, Ok(HandshakeKind::Full), "{name}");
            assert_eq!(client, Ok(HandshakeKind::Full), "{name}");
        }
    }
}

#[test]
fn a_wrong_name_is_said_with_the_right_ones() {
    let place = Place::new();
    let client = client(&place.client("laptop-7"), None, &[HTTP2]).unwrap();
    let (_, seen) = handshake(&place.server(&[]), &client, "hall-b.example");
    let TlsFailure::WrongName(names) = failure(seen) else { panic!("not the name") };
    assert!(names.contains(&"hall-a.example".to_owned()), "{names:?}");
    assert!(names.iter().any(|name| name.contains("127.0.0.1")), "{names:?}");
}

#[test]
fn strangers_are_told_apart_on_both_sides() {
    let (place, other) = (Place::new(), Place::new());
    let server = place.server(&[]);
    let told = |credentials: &Credentials, authority: &Place| {
        // The client believes the server, so that the server decides.
        let mut believing = Credentials::of_directory(authority.path()).unwrap();
        believing.own = Arc::clone(&credentials.own);
        let credentials = believing;
        let config = client(&credentials, None, &[HTTP2]).unwrap();
        let (server, client) = handshake(&server, &config, "localhost");
        (failure(server), failure(client))
    };
    let stranger = other.client("laptop-7");
    let wrong = (TlsFailure::WrongAuthority, TlsFailure::OwnWrongAuthority);
    assert_eq!(told(&stranger, &place), wrong);
    let alone = self_signed(place.path(), 10);
    assert_eq!(told(&alone, &place), wrong);
    let expired = self_signed(place.path(), -1);
    assert_eq!(told(&expired, &place), (TlsFailure::Expired, TlsFailure::OwnExpired));
    let revoked = place.client("laptop-8");
    assert_eq!(place.identity.revoke("laptop-8").unwrap(), 1);
    assert_eq!(told(&revoked, &place), (TlsFailure::Revoked, TlsFailure::OwnRevoked));
    // A server of another authority.
    let config = client(&stranger, None, &[HTTP2]).unwrap();
    let (_, seen) = handshake(&server, &config, "localhost");
    assert_eq!(failure(seen), TlsFailure::WrongAuthority);
}

#[test]
fn a_pinned_certificate_needs_no_authority_and_can_be_revoked() {
    let place = Place::new();
    let alone = self_signed(place.path(), 10);
    let machine = Credentials::of_directory(place.path()).unwrap().facts().clone();
    let config = client(&alone, Some(machine.fingerprint), &[HTTP2]).unwrap();
    let server = place.server(&[alone.facts().fingerprint]);
    let (one, other) = handshake(&server, &config, "no-name-of-it.example");
    assert_eq!((one, other), (Ok(HandshakeKind::Full), Ok(HandshakeKind::Full)));
    let wrong = client(&alone, Some(Fingerprint::of(b"another")), &[HTTP2]).unwrap();
    let (_, seen) = handshake(&server, &wrong, "localhost");
    assert_eq!(failure(seen), TlsFailure::WrongAuthority);
    let fingerprint = alone.facts().fingerprint.to_string();
    assert_eq!(place.identity.revoke(&fingerprint).unwrap(), 1);
    let (seen, _) = handshake(&server, &config, "localhost");
    assert_eq!(failure(seen), TlsFailure::Revoked);
    assert!(client(&alone, None, &[HTTP2]).unwrap_err().contains("no certificate authority"));
}

#[test]
fn a_list_that_cannot_be_read_lets_nobody_in() {
    let place = Place::new();
    let (server, config) =
        (place.server(&[]), client(&place.client("laptop-7"), None, &[HTTP2]).unwrap());
    std::fs::write(place.path().join(REVOKED), "what?\n").unwrap();
    let (seen, _) = handshake(&server, &config, "localhost");
    let TlsFailure::Other(why) = failure(seen) else { panic!("let in") };
    assert!(why.contains("list of revoked certificates cannot be read"), "{why}");
    std::fs::remove_file(place.path().join(REVOKED)).unwrap();
    assert!(handshake(&server, &config, "localhost").0.is_err());
}

#[test]
fn a_client_of_the_authority_is_no_server() {
    let place = Place::new();
    let laptop = place.client("localhost");
    let pretends = server(&laptop, PeerTrust::default(), None, &[HTTP2]).unwrap();
    let config = client(&place.client("laptop-7"), None, &[HTTP2]).unwrap();
    let (_, seen) = handshake(&pretends, &config, "localhost");
    assert!(seen.is_err());
}
