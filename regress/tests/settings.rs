//! Settings that would undo correctness are refused on the ways that SQL tests cannot take: options of a connection, and what a
//! user gives at the start (trap S14).

use anyhow::{Result, ensure};
use strata_regress::whole::Whole;

#[test]
fn options_of_a_connection_and_of_a_start_are_refused() -> Result<()> {
    let whole = Whole::started()?;
    let compute = whole.start_compute("a", &[])?;
    for setting in ["zero_damaged_pages", "ignore_checksum_failure"] {
        let connect = |value: &str| {
            let mut psql = whole.program("psql");
            psql.env("PGOPTIONS", format!("-c {setting}={value}"));
            psql.args(["-X", "-A", "-t", "-d", &compute.connstr, "-c", &format!("SHOW {setting}")]);
            psql.output()
        };
        let refused = connect("on")?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success(), "a connection with {setting} was let in");
        ensure!(said.contains(&format!("{setting} stays off")), "{setting}: {said}");
        let off = connect("off")?;
        ensure!(off.status.success() && off.stdout == b"off\n", "{setting} is not off");

        let said = whole.say(&["compute", "start", "b", "--set", &format!("{setting}=on")])?;
        ensure!(!said.ok && said.stderr.contains("guards durability"), "{setting}: {}", said.stderr);
    }
    Ok(())
}
