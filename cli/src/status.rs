//! `strata status`: every process, every branch, every compute.

use serde_json::{Value, json};

use crate::home::Home;
use crate::node::{self, Kind};
use crate::output::{Output, table};
use crate::{branch, compute};

pub async fn status(home: &Home) -> anyhow::Result<Output> {
    let registry = home.registry()?;
    let mut branches = Vec::new();
    for tenant in registry.tenants.keys() {
        for mut row in branch::describe_all(&registry, tenant).await? {
            row["tenant"] = json!(tenant);
            branches.push(row);
        }
    }
    let mut computes = Vec::new();
    for name in registry.computes.keys() {
        computes.push(compute::describe(home, &registry, name)?);
    }
    let json = json!({
        "object_store": home.object_store().display().to_string(),
        "safekeepers": node::describe_all(home, &registry, Kind::Safekeeper).await,
        "pageservers": node::describe_all(home, &registry, Kind::Pageserver).await,
        "branches": branches,
        "computes": computes,
    });
    let text = for_people(&json);
    Ok(Output::new(json, text))
}

fn for_people(status: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows = |key: &str, columns: &[&str]| -> Vec<Vec<String>> {
        let list = status[key].as_array().cloned().unwrap_or_default();
        list.iter().map(|row| columns.iter().map(|column| plain(&row[*column])).collect()).collect()
    };
    let section = |title: &str, key: &str, columns: &[&str]| {
        let rows = rows(key, columns);
        if rows.is_empty() { format!("no {title}") } else { format!("{title}\n{}", table(columns, &rows)) }
    };
    [
        format!("object store {}", plain(&status["object_store"])),
        section("safekeepers", "safekeepers", &["id", "pid", "port", "state", "problem"]),
        section("pageservers", "pageservers", &["id", "pid", "port", "state", "problem"]),
        section(
            "branches",
            "branches",
            &["tenant", "name", "lsn", "logical_bytes", "physical_bytes", "state", "problem"],
        ),
        section("computes", "computes", &["name", "branch", "state", "pid", "connstr", "problem"]),
    ]
    .join("\n\n")
}
