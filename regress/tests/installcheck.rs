//! The extension's own SQL tests (`regress/sql`), run by Postgres's pg_regress against a compute as `make installcheck` does.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use strata_regress::whole::Whole;

#[test]
fn sql_tests_pass_on_a_compute() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &["--set", "shared_buffers=1MB"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("installcheck.sh");
    let output = Command::new(script)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", compute.port.to_string())
        .env("PGUSER", "postgres")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("All 3 tests passed"), "not all tests ran: {said}");
    Ok(())
}
