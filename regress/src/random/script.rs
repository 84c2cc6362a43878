//! Scripts of random statements on the tables of one schema. A script is made of units: a transaction with savepoints, cursors and
//! changes of tables, or a command that runs by itself. Each is announced by `@unit N` on both of psql's outputs.
//!
//! What storage without a disk is easily wrong about comes up often: rows changed under open cursors (W6), ON CONFLICT (W7), index
//! builds and rewrites (W2, W5), vacuum beside splits (W8), truncation and growth again (V4), unlogged relations (R11).

use std::fmt::Write;

use super::Numbers;

/// Tables of a schema; the last one begins unlogged.
pub const TABLES: u64 = 4;
/// Keys of rows are below this.
const KEYS: u64 = 3000;
/// Further columns that come and go.
const COLUMNS: u64 = 3;

const INDEXES: [(&str, &str); 8] = [
    ("k", "btree (k)"),
    ("word", "hash (word)"),
    ("tags", "gin (tags)"),
    ("place", "gist (place)"),
    ("span", "gist (span)"),
    ("prefix", "spgist (word)"),
    ("quad", "spgist (place)"),
    ("range", "brin (id) WITH (pages_per_range = 4)"),
];

/// Makes the schema, its tables and indexes.
pub fn setup(schema: &str) -> String {
    let mut text = format!(
        "CREATE SCHEMA {schema}; SET search_path = {schema};
CREATE TABLE mark(n int); INSERT INTO mark VALUES (0);
CREATE SEQUENCE one; CREATE SEQUENCE ten INCREMENT 10 CACHE 3;
-- The row of a key: every seventh is toasted.
CREATE FUNCTION filled(g bigint, salt bigint) RETURNS TABLE (id bigint, k bigint, word text, tags int[], place point, span int8range, body text)
LANGUAGE sql IMMUTABLE AS $$ SELECT g, (g * 7919 + salt) % 1000, 'w' || ((g * 31 + salt) % 500),
  ARRAY[(g + salt) % 50, (g * 3 + salt) % 70, g % 7]::int[], point((g * 17 + salt) % 1000, (g * 29 + salt) % 1000),
  int8range((g + salt) % 1000, (g + salt) % 1000 + 1 + g % 20),
  CASE WHEN (g + salt) % 7 = 0 THEN (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 90) i) ELSE repeat('f', (g % 300)::int) END $$;\n"
    );
    for table in 0..TABLES {
        let kind = if table + 1 == TABLES { "UNLOGGED " } else { "" };
        let _ = writeln!(
            text,
            "CREATE {kind}TABLE t{table}(id bigint, k bigint, word text, tags int[], place point, span int8range, body text) WITH (fillfactor = {});
CREATE UNIQUE INDEX t{table}_id ON t{table} (id);",
            60 + 10 * table
        );
        for (name, by) in INDEXES {
            let _ = writeln!(text, "CREATE INDEX t{table}_{name} ON t{table} USING {by};");
        }
        let _ = writeln!(
            text,
            "INSERT INTO t{table} SELECT f.* FROM generate_series(0, 400) g, filled(g, {table}) f;"
        );
    }
    text.push_str("CREATE MATERIALIZED VIEW summary AS SELECT k, count(*) AS n FROM t0 GROUP BY k;\n");
    text
}

/// What a table holds, by every way to it; equal on two servers only if the rows are.
fn check(text: &mut String, table: &str, numbers: &mut Numbers) {
    let (a, b) = (numbers.below(KEYS), numbers.below(900));
    let _ = write!(
        text,
        "SELECT '{table}', count(*), sum(hashtextextended(t::text, 0)) FROM {table} t;
SET enable_seqscan = off;
SELECT count(id) FROM {table} WHERE id BETWEEN {a} AND {a} + 300;
SELECT count(*), sum(id) FROM {table} WHERE k BETWEEN {b} AND {b} + 50;
SELECT count(*), sum(id) FROM {table} WHERE word = 'w{}';
SELECT count(*), sum(id) FROM {table} WHERE word >= 'w1' AND word < 'w2';
SELECT count(*), sum(id) FROM {table} WHERE tags @> ARRAY[{}];
SELECT count(*), sum(id) FROM {table} WHERE place <@ box(point({b}, 0), point({b} + 90, 900));
SELECT count(*), sum(id) FROM {table} WHERE span && int8range({b}, {b} + 30);
SET enable_indexscan = off; SET enable_indexonlyscan = off;
SELECT count(*), sum(k) FROM {table} WHERE id BETWEEN {a} AND {a} + 300;
RESET enable_seqscan; RESET enable_indexscan; RESET enable_indexonlyscan;\n",
        numbers.below(500),
        numbers.below(50)
    );
}

/// Everything in the schema.
pub fn check_all(schema: &str, numbers: &mut Numbers) -> String {
    let mut text = format!("SET search_path = {schema};\nSELECT 'mark', n FROM mark;\n");
    for table in 0..TABLES {
        check(&mut text, &format!("t{table}"), numbers);
    }
    text.push_str("SELECT 'summary', count(*), sum(n) FROM summary;\n");
    text
}

/// Makes the scripts of one session.
pub struct Writer {
    numbers: Numbers,
    schema: &'static str,
    /// Its own, for names of what other sessions must not meet.
    session: u64,
    /// The transaction has declared a cursor that outlives it.
    holds: bool,
    text: String,
}

impl Writer {
    pub fn new(schema: &'static str, session: u64, numbers: Numbers) -> Writer {
        Writer { numbers, schema, session, holds: false, text: String::new() }
    }

    /// `units` units, then a commit that makes all of them safe.
    pub fn script(&mut self, units: u64) -> String {
        self.text = format!("SET search_path = {};\n", self.schema);
        for unit in 0..units {
            let _ = writeln!(self.text, "\\echo @unit {unit}\n\\warn @unit {unit}");
            match self.numbers.below(10) {
                0..6 => self.transaction(),
                6..9 => self.command(),
                _ => {
                    let table = self.table();
                    check(&mut self.text, &table, &mut self.numbers);
                }
            }
        }
        self.line("UPDATE mark SET n = n + 1;");
        std::mem::take(&mut self.text)
    }

    /// A transaction that has done much and is not at its end. It takes no value of a sequence: whether a lost server's successor
    /// knows of one that nobody committed is open.
    pub fn open_transaction(&mut self) -> String {
        self.text = format!("SET search_path = {};\nBEGIN;\n", self.schema);
        for _ in 0..4 {
            self.change();
            self.cursor();
        }
        self.line("TRUNCATE t1;");
        self.change();
        self.holds = false;
        std::mem::take(&mut self.text)
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn table(&mut self) -> String {
        format!("t{}", self.numbers.below(TABLES))
    }

    fn key(&mut self) -> u64 {
        self.numbers.below(KEYS)
    }

    fn transaction(&mut self) {
        let level = *self.numbers.choose(&[
            "",
            "",
            "",
            " ISOLATION LEVEL REPEATABLE READ",
            " ISOLATION LEVEL SERIALIZABLE",
        ]);
        self.line(&format!("BEGIN{level};"));
        for _ in 0..1 + self.numbers.below(5) {
            self.step();
        }
        let name = format!("p{}", self.session);
        match self.numbers.below(12) {
            0..8 => self.line("COMMIT;"),
            8..10 => self.line("ROLLBACK;"),
            10 => self.line(&format!("PREPARE TRANSACTION '{name}';\nCOMMIT PREPARED '{name}';")),
            _ => self.line(&format!("PREPARE TRANSACTION '{name}';\nROLLBACK PREPARED '{name}';")),
        }
        if std::mem::take(&mut self.holds) {
            self.line("FETCH ALL FROM h;\nCLOSE h;");
        }
    }

    fn step(&mut self) {
        match self.numbers.below(20) {
            0..9 => self.change(),
            9..11 => self.cursor(),
            11 => self.current_of(),
            12..14 => self.savepoint(),
            14 => self.locks(),
            15..17 => self.definition(),
            17 => self.line("SELECT nextval('one'), nextval('ten'), nextval('one');"),
            18 => self.exceptions(),
            _ => {
                let table = self.table();
                check(&mut self.text, &table, &mut self.numbers);
            }
        }
    }

    /// Rows of one table are added, changed or deleted.
    fn change(&mut self) {
        let (table, a, salt) = (self.table(), self.key(), self.numbers.below(1000));
        let b = a + self.numbers.below(120);
        let rows = format!("SELECT f.* FROM generate_series({a}, {b}) g, filled(g, {salt}) f");
        let columns = "(id, k, word, tags, place, span, body)";
        let text = match self.numbers.below(11) {
            0..3 => format!("INSERT INTO {table} {columns} {rows} ON CONFLICT DO NOTHING;"),
            3 => format!(
                "INSERT INTO {table} AS t {columns} {rows} ON CONFLICT (id) DO UPDATE SET k = t.k + 1, word = excluded.word, body = excluded.body;"
            ),
            4 => format!("UPDATE {table} SET body = body || 'x' WHERE id BETWEEN {a} AND {b};"),
            5 => format!(
                "UPDATE {table} SET k = k + 1, tags = tags || {salt}, place = point({salt}, k::float8), span = int8range({salt}, {salt} + 5) WHERE id BETWEEN {a} AND {b};"
            ),
            6 => format!("UPDATE {table} SET word = 'w' || (id % 300) WHERE k % 40 = {salt} % 40;"),
            7 => format!("DELETE FROM {table} WHERE id BETWEEN {a} AND {b};"),
            8 => format!("DELETE FROM {table} WHERE id % 11 = {salt} % 11;"),
            9 => format!(
                "MERGE INTO {table} t USING ({rows}) s ON t.id = s.id WHEN MATCHED AND t.k % 2 = 0 THEN DELETE
 WHEN MATCHED THEN UPDATE SET k = s.k WHEN NOT MATCHED THEN INSERT {columns} VALUES (s.id, s.k, s.word, s.tags, s.place, s.span, s.body);"
            ),
            _ => {
                // Rows from a program: should the transaction have failed, none are left over as statements.
                let first = KEYS + self.numbers.below(1_000_000);
                format!(
                    "COPY {table} (id, k, word, body) FROM PROGRAM $$seq {first} {} | awk '{{ print $1 \"\\t\" $1 % 900 \"\\tw\" $1 % 450 \"\\tc\" }}'$$;",
                    first + 5 + self.numbers.below(40)
                )
            }
        };
        self.line(&text);
    }

    /// A cursor sees rows as they were when it was declared, whatever its own transaction does to them since (W6).
    fn cursor(&mut self) {
        let (table, a) = (self.table(), self.key());
        // One that is held outlives its transaction, and is read after it.
        let holds = !self.holds && self.numbers.once_in(4);
        self.holds |= holds;
        let (name, hold) = if holds { ("h", " WITH HOLD") } else { ("c", "") };
        self.line(&format!(
            "DECLARE {name} CURSOR{hold} FOR SELECT id, k, length(body) FROM {table} WHERE id BETWEEN {a} AND {a} + 60 ORDER BY id;
UPDATE {table} SET k = k + 1 WHERE id BETWEEN {a} AND {a} + 40;"
        ));
        if self.numbers.once_in(2) {
            self.line(&format!("FETCH 5 FROM {name};"));
        }
        self.line(&format!(
            "DELETE FROM {table} WHERE id BETWEEN {a} + 20 AND {a} + 30;
INSERT INTO {table} (id, k, word) VALUES ({a} + 25, 1, 'new') ON CONFLICT (id) DO UPDATE SET k = -1;"
        ));
        self.change();
        if !holds {
            self.line("FETCH ALL FROM c;\nCLOSE c;");
        }
    }

    fn current_of(&mut self) {
        let (table, a) = (self.table(), self.key());
        self.line(&format!(
            "DECLARE u CURSOR FOR SELECT id FROM {table} WHERE id BETWEEN {a} AND {a} + 200 ORDER BY id FOR UPDATE;
MOVE 3 u;
UPDATE {table} SET k = k + 100, body = repeat('u', 500) WHERE CURRENT OF u;
FETCH 2 FROM u;
DELETE FROM {table} WHERE CURRENT OF u;
FETCH 1 FROM u;
CLOSE u;"
        ));
    }

    fn savepoint(&mut self) {
        self.line("SAVEPOINT s;");
        self.change();
        if self.numbers.once_in(2) {
            self.line("SAVEPOINT inner_one;");
            self.change();
            self.end_savepoint("inner_one");
        }
        if self.numbers.once_in(3) {
            self.definition();
        }
        self.end_savepoint("s");
        self.change();
    }

    fn end_savepoint(&mut self, name: &str) {
        let how = if self.numbers.once_in(2) { "ROLLBACK TO" } else { "RELEASE" };
        self.line(&format!("{how} {name};"));
    }

    /// Row locks of several kinds by several subtransactions: multixacts.
    fn locks(&mut self) {
        let (table, a) = (self.table(), self.key());
        let [first, second] =
            [(); 2].map(|()| *self.numbers.choose(&["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]));
        let some = format!("FROM (SELECT 1 FROM {table} WHERE id BETWEEN {a} AND {a} + 80");
        self.line(&format!(
            "SELECT count(*) {some} FOR {first}) x;
SAVEPOINT l; SELECT count(*) {some} FOR {second}) x;
UPDATE {table} SET k = k + 1 WHERE id BETWEEN {a} + 10 AND {a} + 40;"
        ));
        self.end_savepoint("l");
    }

    /// Changes of a table's definition or files that a transaction may make.
    fn definition(&mut self) {
        let (table, n) = (self.table(), self.numbers.below(COLUMNS));
        let (index, by) = *self.numbers.choose(&INDEXES);
        let session = self.session;
        let text = match self.numbers.below(12) {
            0 => format!("TRUNCATE {table};"),
            1 => format!("TRUNCATE {table}, mark; INSERT INTO mark VALUES (1);"),
            2 => format!("REINDEX TABLE {table};"),
            3 => format!("CLUSTER {table} USING {table}_k;"),
            4 => format!("ALTER TABLE {table} ALTER COLUMN k TYPE numeric USING k + 1;"),
            5 => format!("ALTER TABLE {table} ALTER COLUMN k TYPE bigint;"),
            6 => format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS x{n} int DEFAULT {n};"),
            7 => format!("ALTER TABLE {table} DROP COLUMN IF EXISTS x{n};"),
            8 => format!("ALTER TABLE {table} SET {};", self.numbers.choose(&["LOGGED", "UNLOGGED"])),
            9 => format!(
                "CREATE TABLE made{session} AS SELECT * FROM {table}; CREATE INDEX ON made{session} USING {by}; UPDATE made{session} SET k = 0;
SELECT count(*), sum(id) FROM made{session}; DROP TABLE made{session};"
            ),
            10 => format!(
                "CREATE TEMP TABLE mine AS SELECT id, k FROM {table}; UPDATE mine SET k = k + 1; SELECT count(*), sum(k) FROM mine; DROP TABLE mine;"
            ),
            _ => format!("DROP INDEX IF EXISTS {table}_{index}; CREATE INDEX {table}_{index} ON {table} USING {by};"),
        };
        self.line(&text);
    }

    /// Many small subtransactions, a part of which fails.
    fn exceptions(&mut self) {
        let (table, a) = (self.table(), self.key());
        self.line(&format!(
            "DO $$ BEGIN FOR i IN {a}..{a} + 70 LOOP BEGIN
  INSERT INTO {table} (id, k, word) VALUES (i, i % 13, 'e'); IF i % 5 = 0 THEN RAISE EXCEPTION 'no'; END IF;
EXCEPTION WHEN raise_exception OR unique_violation THEN NULL; END; END LOOP; END $$;"
        ));
    }

    /// A command that runs by itself, outside any block.
    fn command(&mut self) {
        let (table, session) = (self.table(), self.session);
        let (index, by) = *self.numbers.choose(&INDEXES);
        let text = match self.numbers.below(14) {
            0..3 => format!("VACUUM {table};"),
            3 => format!("VACUUM (FREEZE, ANALYZE) {table};"),
            4 => format!("VACUUM FULL {table};"),
            5 => format!("VACUUM (INDEX_CLEANUP ON, TRUNCATE ON) {table};"),
            6 => "CHECKPOINT;".to_owned(),
            7 if session == 0 => format!("REINDEX TABLE CONCURRENTLY {table};"),
            // Beside others it may fail and leave its unfinished index, which each later one of the whole table would make again.
            7 => format!(
                "REINDEX INDEX CONCURRENTLY {table}_{index};\nDROP INDEX IF EXISTS {table}_{index}_ccnew, {table}_{index}_ccold;"
            ),
            8 => format!(
                "CREATE INDEX CONCURRENTLY extra{session} ON {table} USING {by};\nDROP INDEX CONCURRENTLY IF EXISTS extra{session};"
            ),
            9 => format!("REINDEX INDEX {table}_{index};"),
            10 => "REFRESH MATERIALIZED VIEW summary;".to_owned(),
            // A statement that fails after it has changed rows.
            11 => format!("UPDATE {table} SET k = k / (id - {}) WHERE id < {0} + 1;", self.key()),
            12 => format!("ALTER SEQUENCE one RESTART {};", self.numbers.below(500)),
            _ => format!("DELETE FROM {table}; VACUUM {table};"),
        };
        self.line(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_depend_on_the_seed_only() {
        let script = |seed: u64| Writer::new("lone", 0, Numbers::from_seed(seed)).script(60);
        assert_eq!(script(1), script(1));
        assert_ne!(script(1), script(2));
    }

    #[test]
    fn every_kind_of_statement_comes_up() {
        let mut writer = Writer::new("lone", 0, Numbers::from_seed(1));
        let text = writer.script(400) + &writer.open_transaction();
        for word in [
            "ON CONFLICT (id)",
            "MERGE",
            "COPY",
            "DECLARE c CURSOR FOR",
            "CURSOR WITH HOLD",
            "CURRENT OF",
            "ROLLBACK TO",
            "FOR KEY SHARE",
            "TRUNCATE",
            "REINDEX TABLE CONCURRENTLY",
            "CREATE INDEX CONCURRENTLY",
            "CLUSTER",
            "TYPE numeric",
            "SET UNLOGGED",
            "SET LOGGED",
            "TEMP TABLE",
            "nextval",
            "PREPARE TRANSACTION",
            "COMMIT PREPARED",
            "VACUUM FULL",
            "FREEZE",
            "CHECKPOINT",
            "MATERIALIZED",
            "SERIALIZABLE",
            "USING gin",
            "USING spgist",
            "USING brin",
            "USING hash",
            "USING gist",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
