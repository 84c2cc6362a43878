//! Builds the extension `plain_index.c` and makes its functions and its index method known.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use strata_regress::postgres::BIN_VARIABLE;
use strata_regress::traps::Ground;
use strata_regress::whole::Compute;

pub fn install(ground: &Ground, compute: &Compute) -> Result<()> {
    let bin = std::env::var(BIN_VARIABLE).with_context(|| format!("{BIN_VARIABLE} is not set"))?;
    let library = ground.whole.scratch().join("plain_index.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traps/plain_index.c");
    let compiler = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-I", &format!("{bin}/../include/server"), source, "-o"])
        .arg(&library)
        .output()
        .context("cannot run cc")?;
    ensure!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    let library = library.display();
    ground.sql(
        compute,
        &format!(
            "CREATE FUNCTION plain_handler(internal) RETURNS index_am_handler LANGUAGE C AS '{library}';
             CREATE FUNCTION smuggle(regclass) RETURNS void LANGUAGE C AS '{library}';
             CREATE ACCESS METHOD plain TYPE INDEX HANDLER plain_handler;
             CREATE OPERATOR CLASS plain_int DEFAULT FOR TYPE int USING plain AS OPERATOR 1 ="
        ),
    )?;
    Ok(())
}
