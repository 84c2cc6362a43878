//! The extension's SQL file, kept by hand, names exactly the functions that the library exports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use strata_regress::whole::programs;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// C functions that `sql/strata--*.sql` refers to.
fn declared() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("pg_ext/sql"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let after_module = text.split("'MODULE_PATHNAME', '").skip(1);
        names.extend(after_module.filter_map(|rest| rest.split('\'').next()).map(str::to_owned));
    }
    Ok(names)
}

/// C functions that the library announces to Postgres (`fmgr.h`, PG_FUNCTION_INFO_V1).
fn exported() -> Result<BTreeSet<String>> {
    let library = programs().join("libstrata.so");
    let output =
        Command::new("nm").arg("-D").arg("--defined-only").arg(&library).output().context("cannot run nm")?;
    ensure!(output.status.success(), "nm {}: {}", library.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let symbols = text.lines().filter_map(|line| line.split_whitespace().last());
    Ok(symbols.filter_map(|symbol| symbol.strip_prefix("pg_finfo_")).map(str::to_owned).collect())
}

#[test]
fn declared_functions_are_the_exported_ones() -> Result<()> {
    let (declared, exported) = (declared()?, exported()?);
    ensure!(!declared.is_empty(), "the SQL file was read");
    ensure!(declared == exported, "declared in SQL: {declared:?}, exported by the library: {exported:?}");
    Ok(())
}
