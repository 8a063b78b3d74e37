//! Checks that no file of tests is left out of the build, which would be silent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names in a folder of this crate.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.trim() == wanted)
}

#[test]
fn every_file_of_tests_is_built() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("files");
    let manifest = fs::read_to_string(folder.with_file_name("Cargo.toml")).unwrap();
    let mut missing = Vec::new();
    for name in names(&folder) {
        let is_folder = folder.join(&name).is_dir();
        let main = if is_folder { format!("{name}/main.rs") } else { name.clone() };
        if !has_line(&manifest, &format!("path = \"files/{main}\"")) {
            missing.push(format!("files/{main}: no [[test]] in tests/Cargo.toml"));
        }
        if !is_folder {
            continue;
        }
        let text = fs::read_to_string(folder.join(&main)).unwrap();
        let modules = names(&folder.join(&name)).into_iter();
        for module in modules.filter_map(|file| file.strip_suffix(".rs").map(str::to_owned)) {
            if module != "main" && !has_line(&text, &format!("mod {module};")) {
                missing.push(format!("files/{name}/{module}.rs: no `mod` in {main}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
