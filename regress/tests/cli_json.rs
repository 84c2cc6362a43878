//! The shape of every verb's JSON: keys and kinds of values, held against `regress/expected/cli.json`, which `docs/cli.md` explains.
//! Regenerate after a wanted change with `STRATA_REGENERATE=1 cargo test -p strata-regress --test cli_json`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use strata_regress::whole::Whole;

/// Kinds instead of values; of a list the shape of its first item; of `timings_ms` the whole, whose steps are not the contract.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::Object(fields) => {
            let of = |(key, value): (&String, &Value)| {
                let shape = if key == "timings_ms" { json!("numbers by step") } else { shape(value) };
                (key.clone(), shape)
            };
            Value::Object(fields.iter().map(of).collect::<Map<_, _>>())
        }
    }
}

#[test]
fn every_verb_prints_what_is_promised() -> Result<()> {
    let whole = Whole::initialised(&[])?;
    let verbs: &[(&str, &[&str])] = &[
        ("start", &["start"]),
        ("tenant create", &["tenant", "create", "other"]),
        ("tenant list", &["tenant", "list"]),
        ("branch create", &["branch", "create", "child"]),
        ("branch list", &["branch", "list"]),
        ("compute start", &["compute", "start", "a"]),
        ("compute attach", &["compute", "attach", "b", "--branch", "child"]),
        ("compute set", &["compute", "set", "a", "work_mem=8MB", "shared_buffers=64MB"]),
        ("compute list", &["compute", "list"]),
        ("compute show", &["compute", "show", "a"]),
        ("compute logs", &["compute", "logs", "a", "--lines", "2"]),
        ("status", &["status"]),
        ("lsn", &["lsn", "main"]),
        ("compute detach", &["compute", "detach", "b"]),
        ("compute stop", &["compute", "stop", "a"]),
        ("safekeeper stop", &["safekeeper", "stop", "2"]),
        ("safekeeper start", &["safekeeper", "start", "2"]),
        ("pageserver stop", &["pageserver", "stop", "1"]),
        ("pageserver start", &["pageserver", "start", "1"]),
        ("pg-bindir", &["pg-bindir"]),
        ("pg-srcdir", &["pg-srcdir"]),
        ("stop", &["stop"]),
    ];
    let mut shapes = Map::new();
    for (name, arguments) in verbs {
        shapes.insert((*name).to_owned(), shape(&whole.json(arguments)?));
    }
    let found = format!("{:#}\n", Value::Object(shapes));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expected/cli.json");
    if std::env::var_os("STRATA_REGENERATE").is_some() {
        std::fs::write(&path, &found)?;
    }
    let expected =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(found == expected, "the JSON of the verbs has changed; found:\n{found}");
    Ok(())
}
