//! What must hold of what scripts printed: two servers print the same, and no error means that something is wrong with storage.

use anyhow::{Result, ensure};

use super::session::Printed;

/// Errors of class XX (internal error) that sessions beside others may meet in any Postgres: concurrent definitions, few buffers.
/// What lasts is found afterwards.
const EXPECTED_INTERNAL: [&str; 7] = [
    "no unpinned buffers available",
    "tuple concurrently updated",
    "tuple concurrently deleted",
    "cache lookup failed for",
    "could not open relation with OID",
    "could not find tuple for",
    "relation deleted while still in use",
];
/// Classes of errors that no statement may cause: internal errors and damage, errors of files, a server that is gone.
const SERIOUS: [&str; 4] = ["XX", "58", "57P", "08"];

/// A rewrite of a table fails so in any Postgres: a row was deleted while a transaction of another database ran, VACUUM removed its
/// TOAST values, for that transaction does not count there, and the rewrite, whose own snapshot knows the transaction, copies
/// the row once more (`src/backend/storage/ipc/procarray.c`, ComputeXidHorizons: horizons may move backwards). On vanilla storage: BEGIN and
/// `txid_current()` in one database; in the other DELETE of a row with a TOAST value, VACUUM of the TOAST table, CLUSTER.
const OF_A_REWRITE: &str = "missing chunk number";
const REWRITES: [&str; 3] = ["CLUSTER ", "VACUUM FULL ", "VACUUM (FULL"];

/// Both printed the same; else an error that says where they part.
pub fn same(ours: &Printed, theirs: &Printed) -> Result<()> {
    for (what, ours, theirs) in [("rows", &ours.rows, &theirs.rows), ("errors", &ours.errors, &theirs.errors)]
    {
        let mut unit = "before the first unit";
        let (mut left, mut right) = (ours.lines(), theirs.lines());
        for line in 1.. {
            let (a, b) = (left.next(), right.next());
            ensure!(
                a == b,
                "{what} differ in line {line} ({unit}): '{}' here, '{}' on vanilla storage",
                a.unwrap_or("nothing"),
                b.unwrap_or("nothing")
            );
            match a {
                Some(a) if a.starts_with("@unit") => unit = a,
                Some(_) => {}
                None => break,
            }
        }
    }
    Ok(())
}

/// Lines of what psql says with codes that no statement of a script may cause. The statement follows its error.
pub fn serious(errors: &str) -> Vec<&str> {
    let lines: Vec<&str> = errors.lines().collect();
    let is_serious = |index: &usize| {
        let line = lines[*index];
        let Some((_, rest)) = line.split_once("ERROR:  ").or_else(|| line.split_once("FATAL:  ")) else {
            return line.contains("server closed the connection") || line.contains("connection to server");
        };
        SERIOUS.iter().any(|class| rest.starts_with(class))
            && !EXPECTED_INTERNAL.iter().any(|text| rest.contains(text))
            && !(rest.contains(OF_A_REWRITE) && is_rewrite(statement(&lines[index + 1..])))
    };
    (0..lines.len()).filter(is_serious).map(|index| lines[index]).collect()
}

/// The statement that the error before these lines is of.
fn statement<'a>(after: &[&'a str]) -> &'a str {
    let next = after.iter().take_while(|line| !line.contains("ERROR:  "));
    next.filter_map(|line| line.split_once("STATEMENT:  "))
        .map(|(_, statement)| statement)
        .next()
        .unwrap_or("")
}

fn is_rewrite(statement: &str) -> bool {
    REWRITES.iter().any(|rewrite| statement.starts_with(rewrite))
}

/// Errors of any kind, of a session that has the server to itself and only reads.
pub fn any(errors: &str) -> Vec<&str> {
    errors.lines().filter(|line| line.contains("ERROR:") || line.contains("FATAL:")).collect()
}

/// Lines of a server's log that no script may cause: a PANIC (a difference of `strata.compare_local` is one) or a crash.
pub fn serious_log(log: &str) -> Vec<&str> {
    const MARKS: [&str; 4] = ["PANIC:", "strata.compare_local", "terminated by signal", "TRAP:"];
    log.lines().filter(|line| MARKS.iter().any(|mark| line.contains(mark))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(rows: &str, errors: &str) -> Printed {
        Printed { rows: rows.to_owned(), errors: errors.to_owned() }
    }

    #[test]
    fn one_other_line_is_a_difference() {
        let ours = printed("@unit 0\n1|2\n@unit 1\n3\n", "psql:<stdin>:3: ERROR:  23505\n");
        same(&ours, &printed(&ours.rows, &ours.errors)).expect("equal");
        let said =
            same(&ours, &printed("@unit 0\n1|2\n@unit 1\n4\n", &ours.errors)).expect_err("another row");
        assert!(said.to_string().contains("line 4 (@unit 1): '3' here, '4'"), "{said}");
        assert!(same(&ours, &printed("@unit 0\n1|2\n", &ours.errors)).is_err(), "lines are missing");
        assert!(same(&ours, &printed(&ours.rows, "")).is_err(), "an error is missing");
    }

    #[test]
    fn a_missing_value_is_serious_but_in_a_rewrite() {
        let error = "psql:<stdin>:7: ERROR:  XX001: missing chunk number 0 for toast value 1 in pg_toast_2";
        let of = |statement: &str| {
            format!("{error}\nLOCATION:  heap_fetch_toast_slice, heaptoast.c:784\n{statement}\n")
        };
        assert!(serious(&of("psql:<stdin>:7: STATEMENT:  CLUSTER t3 USING t3_k;")).is_empty());
        assert!(serious(&of("psql:<stdin>:7: STATEMENT:  VACUUM FULL t3;")).is_empty());
        assert_eq!(serious(&of("psql:<stdin>:7: STATEMENT:  SELECT * FROM t3;")), [error]);
        assert_eq!(
            serious(&of("psql:<stdin>:9: ERROR:  25P02: aborted\npsql:<stdin>:9: STATEMENT:  CLUSTER t3;")),
            [error]
        );
    }

    #[test]
    fn damage_is_serious_and_mistakes_of_a_script_are_not() {
        let errors = "psql:<stdin>:1: ERROR:  23505: duplicate key value\npsql:<stdin>:2: ERROR:  XX000: tuple concurrently updated\n\
            psql:<stdin>:3: ERROR:  XX001: invalid page in block 3\npsql:<stdin>:4: ERROR:  58030: could not read\n\
            psql:<stdin>:5: FATAL:  57P02: x\nserver closed the connection unexpectedly\n";
        assert_eq!(serious(errors).len(), 4);
        assert_eq!(serious_log("LOG:  all is well\nPANIC:  strata.compare_local: block 1\n").len(), 1);
    }
}
