//! Compiles the `.proto` files without protoc: protox parses them, tonic-prost-build generates the Rust.
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    let files = [
        "strata/wal/v1/safekeeper.proto",
        "strata/page/v1/page.proto",
        "strata/pageserver/v1/pageserver.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, [root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
