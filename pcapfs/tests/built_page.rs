//! The built files of the page are the build of its sources: `web/dist/MANIFEST` has the hash of
//! each source and of each built file, as they were when `make web` wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ADVICE: &str = "run `make web`, and commit what it changes";

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// The SHA-256 of each file of the manifest, in hexadecimal, by its path from `web/`.
fn manifest() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(web().join("dist/MANIFEST")).unwrap();
    text.lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(hash, path)| (path.to_owned(), hash.to_owned()))
        .collect()
}

/// The files in a folder of `web/` and below it, by their paths from `web/`; a file is itself.
fn files(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries.flat_map(|entry| files(&entry.unwrap().path())).collect();
    }
    vec![path.strip_prefix(web()).unwrap().to_str().unwrap().to_owned()]
}

#[test]
fn files_are_as_in_the_manifest() {
    for (path, expected) in manifest() {
        let content = std::fs::read(web().join(&path))
            .unwrap_or_else(|error| panic!("{path}: {error}; {ADVICE}"));
        let digest = ring::digest::digest(&ring::digest::SHA256, &content);
        let found: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{path}: changed since the page was built; {ADVICE}");
    }
}

#[test]
fn no_file_is_missing_in_the_manifest() {
    let listed: BTreeSet<String> = manifest().into_keys().collect();
    let roots: BTreeSet<&str> = listed.iter().map(|path| path.split('/').next().unwrap()).collect();
    assert!(roots.is_superset(&BTreeSet::from(["dist", "package-lock.json", "src"])), "{roots:?}");
    for path in roots.iter().flat_map(|root| files(&web().join(root))) {
        let is_listed = listed.contains(&path) || path == "dist/MANIFEST";
        assert!(is_listed, "{path}: made since the page was built; {ADVICE}");
    }
}
