//! Generates Rust code: from the definition of the control service, without protoc, and the list of
//! the files of the page of `pcapfs web`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PROTO: &str = "pcapfs/control/v1/control.proto";

/// The built files of the page.
const PAGE: &str = "web/dist";

/// A file that is about the build, and no file of the page.
const MANIFEST: &str = "MANIFEST";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let definition = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure()
        // Savefile bytes are passed on as they arrived, without a copy.
        .bytes(".pcapfs.control.v1.Chunk")
        .bytes(".pcapfs.control.v1.FollowResponse")
        .compile_fds(definition)?;
    let list = Path::new(&env::var("OUT_DIR")?).join("web_files.rs");
    fs::write(list, page_files()?)?;
    Ok(())
}

/// The path and the bytes of each file of the page, as a constant; none if there is no page.
fn page_files() -> Result<String, Box<dyn Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(PAGE);
    let mut files = Vec::new();
    if folder.is_dir() {
        println!("cargo::rerun-if-changed={PAGE}");
        collect(&folder, &mut files)?;
    }
    files.sort();
    let mut text = "const BUILT: &[(&str, &[u8])] = &[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(&folder)?.to_str().ok_or("a name that is no text")?;
        if name != MANIFEST {
            writeln!(text, "    ({name:?}, include_bytes!({file:?})),")?;
        }
    }
    text.push_str("];\n");
    Ok(text)
}

/// All files in a folder and below.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
