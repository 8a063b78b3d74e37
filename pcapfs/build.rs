//! Generates Rust code from the definition of the control service, without protoc.

use std::error::Error;

const PROTO: &str = "pcapfs/control/v1/control.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let definition = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure()
        // Savefile bytes are passed on as they arrived, without a copy.
        .bytes(".pcapfs.control.v1.Chunk")
        .bytes(".pcapfs.control.v1.FollowResponse")
        .compile_fds(definition)?;
    Ok(())
}
