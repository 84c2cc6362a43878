//! Libraries that a user preloads beside the storage manager: welcome, unless one takes the storage manager's place (trap S14).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use strata_regress::refusal::refuses;
use strata_regress::stock::tree;
use strata_regress::whole::Whole;

/// A library that chooses the first storage manager, that of local files, for every relation.
const RIVAL: &str = "
    #include \"postgres.h\"
    #include \"fmgr.h\"
    #include \"storage/relfilelocator.h\"
    PG_MODULE_MAGIC;
    extern int (*smgr_select_hook) (RelFileLocatorBackend rlocator);
    static int local_files(RelFileLocatorBackend rlocator) { return 0; }
    void _PG_init(void);
    void _PG_init(void) { smgr_select_hook = local_files; }
";

fn compiled(source: &str, folder: &Path) -> Result<PathBuf> {
    let (from, to) = (folder.join("rival.c"), folder.join("rival.so"));
    std::fs::write(&from, source)?;
    let pg_config = tree("patched")?.join("bin/pg_config");
    let includes = Command::new(pg_config).arg("--includedir-server").output()?.stdout;
    let includes = String::from_utf8(includes)?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-O1", "-I", includes.trim(), "-o"]).arg(&to).arg(&from);
    let said = gcc.output().context("cannot run gcc, which built Postgres")?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(to)
}

#[test]
fn a_library_that_takes_the_storage_managers_place_is_refused() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_preload_libraries=auto_explain"])?;
    let shown = whole.sql(&compute.connstr, "SHOW shared_preload_libraries")?;
    ensure!(shown == "strata,auto_explain", "preloaded: {shown}");
    whole.sql(&compute.connstr, "CREATE TABLE kept AS SELECT 42 AS n")?;
    whole.stop_compute("a")?.context("a clean stop")?;

    let rival = compiled(RIVAL, whole.scratch())?;
    let setting = format!("shared_preload_libraries={}", rival.display());
    let words = ["another library of shared_preload_libraries has taken over the server's storage manager"];
    refuses(&whole, &["compute", "start", "a", "--set", &setting], &words)?;
    refuses(
        &whole,
        &["compute", "start", "a", "--set", "shared_preload_libraries='x y'"],
        &["no name of a library"],
    )?;
    refuses(
        &whole,
        &["compute", "start", "a", "--set", "shared_preload_libraries=no_such_library"],
        &["no_such_library"],
    )?;

    // What was given last and worked is kept.
    let compute = whole.start_compute("a", &[])?;
    ensure!(whole.sql(&compute.connstr, "SELECT n FROM kept")? == "42", "the row is gone");
    ensure!(
        whole.sql(&compute.connstr, "SHOW shared_preload_libraries")? == "strata,auto_explain",
        "forgotten"
    );
    Ok(())
}
