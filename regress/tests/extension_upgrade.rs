//! An extension that was made in an older version and updated is exactly the one that is made today: members, definitions, rights,
//! comments, and what a dump says of them. A dump of a database with the extension is restored with it and its users' rights.

use anyhow::{Result, ensure};
use strata_regress::postgres::{Cluster, Installation, Stop};

/// Everything that there is to know of the extension's members, one line each, whatever their numbers are.
const OBJECTS: &str = "
    WITH member AS (
        SELECT classid, objid, (pg_identify_object(classid, objid, 0)).identity AS name, obj_description(objid, classid::regclass::name) AS comment
        FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
            AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'strata'))
    SELECT concat_ws(E'\\t', classid::regclass, name, comment,
        CASE classid WHEN 'pg_proc'::regclass THEN pg_get_functiondef(objid) WHEN 'pg_class'::regclass THEN pg_get_viewdef(objid) END,
        (SELECT concat_ws(' ', proowner::regrole, proacl::text) FROM pg_proc WHERE oid = objid AND classid = 'pg_proc'::regclass),
        (SELECT concat_ws(' ', relowner::regrole, relacl::text, reloptions::text) FROM pg_class WHERE oid = objid AND classid = 'pg_class'::regclass),
        (SELECT string_agg(concat_ws(' ', objsubid, privtype, initprivs::text), ',' ORDER BY objsubid) FROM pg_init_privs i
            WHERE i.objoid = objid AND i.classoid = classid))
    FROM member ORDER BY 1";

/// Rights that a user gives and takes away, which a dump must tell apart from the extension's own.
const RIGHTS: &str = "GRANT EXECUTE ON FUNCTION strata_keeper() TO watcher; REVOKE EXECUTE ON FUNCTION strata_lsns() FROM pg_monitor;
    GRANT SELECT ON strata_page_requests, strata_lfc_stats TO watcher";

fn objects(cluster: &Cluster, database: &str) -> Result<String> {
    cluster.sql_in(database, OBJECTS)
}

fn dump(cluster: &Cluster, database: &str) -> Result<String> {
    let output = cluster.client("pg_dump", database).output()?;
    ensure!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Without the random key that keeps rows from being taken for commands of psql.
fn without_key(dump: &str) -> String {
    let keyed = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    dump.lines().filter(|line| !keyed(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_updated_extension_is_the_one_of_today() -> Result<()> {
    let mut cluster = Cluster::init(&Installation::from_env()?, &[])?;
    cluster.start(&[])?;
    let default = cluster.sql("SELECT default_version FROM pg_available_extensions WHERE name = 'strata'")?;
    let of_today = cluster.sql("SELECT string_agg(version, ',' ORDER BY version) FROM pg_available_extension_versions WHERE name = 'strata'")?;
    let versions: Vec<&str> = of_today.split(',').collect();
    ensure!(
        versions.first() == Some(&"0.1") && versions.last() == Some(&default.as_str()),
        "{default} of {versions:?}"
    );
    cluster.sql("CREATE ROLE watcher")?;
    cluster.sql("CREATE DATABASE fresh")?;
    cluster.sql_in("fresh", "CREATE EXTENSION strata")?;
    let expected = objects(&cluster, "fresh")?;
    ensure!(expected.lines().filter(|line| line.starts_with("pg_proc\t")).count() > 15, "{expected}");
    for (number, version) in versions.iter().enumerate() {
        let database = format!("updated{number}");
        cluster.sql(&format!("CREATE DATABASE {database}"))?;
        cluster.sql_in(&database, &format!("CREATE EXTENSION strata VERSION '{version}'"))?;
        let before = objects(&cluster, &database)?;
        ensure!((before == expected) == (*version == default), "version {version} is not what it was");
        // Rights that users gave before the update stay, and stay theirs.
        cluster.sql_in(&database, "GRANT EXECUTE ON FUNCTION strata_keeper() TO watcher")?;
        cluster.sql_in(
            &database,
            "ALTER EXTENSION strata UPDATE; REVOKE EXECUTE ON FUNCTION strata_keeper() FROM watcher",
        )?;
        let updated = objects(&cluster, &database)?;
        ensure!(updated == expected, "updated from {version}:\n{updated}\n\nmade anew:\n{expected}");
        let answers = "SELECT extversion, strata_version() LIKE 'strata % for PostgreSQL 17%', strata_smgr_mode() FROM pg_extension WHERE extname = 'strata'";
        ensure!(cluster.sql_in(&database, answers)? == format!("{default}|t|local"), "it does not answer");
        cluster.sql_in(&database, "SELECT * FROM strata_lfc_stats, strata_stat_prefetch, strata_page_requests, strata_lfc_prewarm_progress")?;
    }

    // A dump holds the extension and what users have changed about it, however it came to its version.
    for database in ["fresh", "updated0"] {
        cluster.sql_in(database, RIGHTS)?;
        cluster.sql_in(database, "CREATE TABLE kept AS SELECT 42 AS n; CREATE VIEW mine AS SELECT kind, requests FROM strata_page_requests")?;
    }
    let dumped = dump(&cluster, "fresh")?;
    ensure!(without_key(&dumped) == without_key(&dump(&cluster, "updated0")?), "the dumps differ");
    ensure!(!dumped.contains("CREATE FUNCTION"), "members are the extension's: {dumped}");
    cluster.sql("CREATE DATABASE restored")?;
    cluster.sql_in("restored", &dumped)?;
    ensure!(
        objects(&cluster, "restored")? == objects(&cluster, "fresh")?,
        "the restored extension is another"
    );
    ensure!(objects(&cluster, "restored")? != expected, "the users' rights are gone");
    ensure!(cluster.sql_in("restored", "SELECT n, (SELECT count(*) FROM mine) FROM kept")? == "42|0", "rows");
    ensure!(
        without_key(&dump(&cluster, "restored")?) == without_key(&dumped),
        "a dump of the restored one differs"
    );
    cluster.stop(Stop::Fast)
}
