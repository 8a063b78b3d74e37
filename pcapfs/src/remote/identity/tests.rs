use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn an_identity_is_made_once_and_its_keys_are_for_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("deep/identity");
    let identity = Identity::new(directory.clone());
    let error = identity.issue("laptop-7", 10).unwrap_err().to_string();
    assert!(error.contains("pcapfs identity init"), "{error}");
    identity.create(&["hall-a".to_owned(), "10.0.0.1".to_owned()], 400).unwrap();
    for (name, mode) in
        [(AUTHORITY, 0o644), (AUTHORITY_KEY, 0o600), (MACHINE, 0o644), (MACHINE_KEY, 0o600)]
    {
        let found = fs::metadata(directory.join(name)).unwrap();
        assert_eq!(found.mode() & 0o7777, mode, "{name}");
    }
    let before = fs::read(directory.join(AUTHORITY_KEY)).unwrap();
    let error = identity.create(&[], 400).unwrap_err().to_string();
    assert!(error.contains("no key is overwritten"), "{error}");
    let contents = identity.contents().unwrap();
    for name in ["hall-a", "10.0.0.1", "localhost", "127.0.0.1", "::1"] {
        assert!(contents.machine.names.iter().any(|known| known == name), "{name}");
    }
    assert_eq!(contents.machine.name(), "hall-a");
    assert!((398..=400).contains(&contents.machine.days_left()));
    // A new certificate of the same machine.
    for name in [MACHINE, MACHINE_KEY] {
        fs::rename(directory.join(name), directory.join(format!("{name}.old"))).unwrap();
    }
    identity.create(&[], 10_000).unwrap();
    assert_eq!(fs::read(directory.join(AUTHORITY_KEY)).unwrap(), before, "the same authority");
    let again = identity.contents().unwrap();
    assert_ne!(again.machine.fingerprint, contents.machine.fingerprint);
    assert_eq!(again.machine.not_after, again.authority.not_after, "no longer than its authority");
    fs::remove_file(directory.join(MACHINE)).unwrap();
    fs::remove_file(directory.join(MACHINE_KEY)).unwrap();
    fs::remove_file(directory.join(AUTHORITY_KEY)).unwrap();
    let error = identity.create(&[], 10).unwrap_err().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
    assert!(!directory.join(MACHINE).exists(), "nothing was made");
}

#[test]
fn clients_are_noted_and_revoked_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::new(folder.path().to_owned());
    identity.create(&[], 10).unwrap();
    let first = identity.issue("laptop-7", 10).unwrap();
    assert_eq!((first.facts.name().as_str(), first.others), ("laptop-7", 0));
    assert_eq!(first.pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(first.pem.matches("PRIVATE KEY").count(), 2);
    let second = identity.issue("laptop-7", 10).unwrap();
    assert_eq!(second.others, 1);
    identity.issue("laptop-8", 10).unwrap();
    let error = identity.revoke("laptop-9").unwrap_err().to_string();
    assert!(error.contains("(have: laptop-7, laptop-8; "), "{error}");
    assert_eq!(identity.revoke("laptop-7").unwrap(), 2);
    assert_eq!(identity.revoke("laptop-7").unwrap(), 0);
    let contents = identity.contents().unwrap();
    let revoked: Vec<_> = contents.revoked.iter().map(|one| one.fingerprint).collect();
    assert_eq!(revoked, [first.facts.fingerprint, second.facts.fingerprint]);
    assert_eq!(identity.issue("laptop-7", 10).unwrap().others, 0);
    for wrong in ["", "../x", "a b", "-x", "x\n"] {
        let error = identity.issue(wrong, 10).unwrap_err().to_string();
        assert!(error.contains("is no name of a client"), "{error}");
    }
}
