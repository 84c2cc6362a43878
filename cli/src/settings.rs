//! Settings of computes: given at a start, changed with `compute set`. The registry has what the next start gets; the spec of a
//! live supervisor what its server runs with, which a start after a crash gets again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;
use strata_compute::reload::{self, Change};
use strata_compute::settings::user_conf;
use strata_compute::spec::{Phase, Spec, check_setting};

use crate::args::ComputeSet;
use crate::home::{Home, Locked, write_whole};
use crate::output::Output;
use crate::users::RunAs;
use crate::{compute, postgres};

type Settings = BTreeMap<String, String>;

/// `GUC=VALUE` pairs, checked; the later one of a name counts. Values are taken as they are, spaces included.
pub fn parse(pairs: &[String]) -> anyhow::Result<Settings> {
    pairs.iter().map(|pair| parse_one(pair)).collect()
}

fn parse_one(pair: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = pair.split_once('=').with_context(|| format!("'{pair}' is not GUC=VALUE"))?;
    check_setting(name, value)?;
    Ok((name.trim().to_ascii_lowercase(), value.to_owned()))
}

/// What `compute set` is asked for; `None` takes a setting away.
fn asked(options: &ComputeSet) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let mut asked = BTreeMap::new();
    let given = options.settings.iter().map(String::as_str).map(parse_one);
    let taken = options.reset.iter().map(|name| parse_one(&format!("{name}=")));
    for pair in given.chain(taken) {
        let (name, value) = pair?;
        let value = Some(value).filter(|value| !value.is_empty());
        if asked.insert(name.clone(), value).is_some() {
            bail!("'{name}' is named twice: say once what it is to be");
        }
    }
    Ok(asked)
}

/// Settings after a change, and the names that it is about: what is taken away without being there is no change.
fn changed(known: &Settings, asked: &BTreeMap<String, Option<String>>) -> (Settings, BTreeSet<String>) {
    let mut settings = known.clone();
    let mut names = BTreeSet::new();
    for (name, value) in asked {
        let is_change = match value {
            Some(value) => {
                settings.insert(name.clone(), value.clone());
                true
            }
            None => settings.remove(name).is_some(),
        };
        names.extend(is_change.then(|| name.clone()));
    }
    (settings, names)
}

/// `strata compute set`: all or none, under the lock, so that no start comes in between.
pub async fn set(home: &Home, options: &ComputeSet) -> anyhow::Result<Output> {
    let name = &options.name;
    let asked = asked(options)?;
    let mut locked = home.lock()?;
    let known = &locked.registry.compute(name)?.settings;
    let (settings, names) = changed(known, &asked);
    let phase = compute::live_phase(home, name);
    let waiting = match phase {
        _ if names.is_empty() => BTreeSet::new(),
        None => {
            store(&mut locked, name, &settings)?;
            names.clone()
        }
        Some(Phase::Running) => set_running(home, &mut locked, name, &settings, &names)
            .await
            .with_context(|| format!("compute '{name}'"))?,
        Some(phase) => {
            let phase = json!(phase);
            bail!(
                "compute '{name}' is {} just now: try again when it runs or is stopped",
                phase.as_str().unwrap_or_default()
            )
        }
    };
    let applied: BTreeSet<&String> = names.difference(&waiting).collect();
    let state = if phase.is_some() { "running" } else { "stopped" };
    let shown = json!({
        "name": name, "state": state, "settings": settings, "applied": applied, "at_next_start": waiting,
    });
    Ok(Output::new(shown, text(name, phase.is_some(), &settings, &applied, &waiting)))
}

/// A compute that is down: Postgres checks what it can without a server, and the next start has the rest to say.
fn store(locked: &mut Locked, name: &str, settings: &Settings) -> anyhow::Result<()> {
    postgres::check_configuration(&postgres::tree()?, RunAs::current()?, &user_conf(settings))?;
    keep(locked, name, settings)
}

fn keep(locked: &mut Locked, name: &str, settings: &Settings) -> anyhow::Result<()> {
    let known = locked.registry.computes.get_mut(name).context("it was there a moment ago")?;
    known.settings = settings.clone();
    locked.save()
}

/// Answers with the names that wait for the next start.
async fn set_running(
    home: &Home,
    locked: &mut Locked,
    name: &str,
    settings: &Settings,
    names: &BTreeSet<String>,
) -> anyhow::Result<BTreeSet<String>> {
    let path = compute::spec_path(home, name);
    let spec = Spec::read(&path)?;
    let known = &locked.registry.compute(name)?.settings;
    // What the start had besides, such as the size of the cache that the environment named.
    let besides = spec.settings.iter().filter(|(name, _)| !known.contains_key(*name));
    let mut desired: Settings = besides.map(|(name, value)| (name.clone(), value.clone())).collect();
    desired.extend(settings.clone());
    let change = Change { desired: &desired, changed: names };
    let now = |waiting: &BTreeSet<String>| {
        let mut spec = spec.clone();
        for name in names.difference(waiting) {
            match settings.get(name) {
                Some(value) => spec.settings.insert(name.clone(), value.clone()),
                None => spec.settings.remove(name),
            };
        }
        spec
    };
    reload::change(&spec, &change, |waiting| {
        write_spec(&path, &now(waiting))?;
        keep(locked, name, settings).or_else(|error| write_spec(&path, &spec).and(Err(error)))
    })
    .await
}

/// The supervisor of a live compute follows its spec.
pub fn move_pageserver(home: &Home, name: &str, address: &str) -> anyhow::Result<()> {
    let path = compute::spec_path(home, name);
    let spec = Spec::read(&path)?;
    if spec.pageserver == address {
        return Ok(());
    }
    write_spec(&path, &Spec { pageserver: address.to_owned(), ..spec })
}

fn write_spec(path: &Path, spec: &Spec) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(spec).context("a spec is plain JSON")?;
    write_whole(path, text.as_bytes())
}

fn text(
    name: &str,
    runs: bool,
    settings: &Settings,
    applied: &BTreeSet<&String>,
    waiting: &BTreeSet<String>,
) -> String {
    let list = |names: Vec<&str>| names.join(", ");
    let applied = list(applied.iter().map(|name| name.as_str()).collect());
    let waits = list(waiting.iter().map(String::as_str).collect());
    let why = if runs { "needs a restart" } else { "the compute does not run" };
    match (applied.is_empty(), waits.is_empty()) {
        (true, true) if settings.is_empty() => format!("compute {name}: no setting is kept"),
        (true, true) => {
            let lines = settings.iter().map(|(name, value)| format!("{name}={value}"));
            lines.collect::<Vec<_>>().join("\n")
        }
        (false, true) => format!("compute {name}: applied {applied}"),
        (true, false) => format!("compute {name}: at the next start ({why}): {waits}"),
        (false, false) => format!("compute {name}: applied {applied}; at the next start ({why}): {waits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: &[&str], reset: &[&str]) -> ComputeSet {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ComputeSet { name: "a".into(), settings: owned(settings), reset: owned(reset) }
    }

    #[test]
    fn values_are_taken_as_they_are() {
        let pairs = [" Log_Line_Prefix = a=b ".to_owned()];
        let expected = Settings::from([("log_line_prefix".to_owned(), " a=b ".to_owned())]);
        assert_eq!(parse(&pairs).expect("good"), expected);
        assert!(parse(&["work_mem".to_owned()]).is_err());
    }

    #[test]
    fn an_empty_value_takes_away_as_reset_does() {
        let known = Settings::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let asked = asked(&set(&["a=", "c= x", "d="], &["B"])).expect("good");
        let (settings, names) = changed(&known, &asked);
        assert_eq!(settings, Settings::from([("c".to_owned(), " x".to_owned())]));
        assert_eq!(names.into_iter().collect::<String>(), "abc");
    }

    #[test]
    fn what_is_named_twice_or_guarded_is_refused() {
        for bad in
            [set(&["a=1", "A=2"], &[]), set(&["a=1"], &["a"]), set(&["fsync=on"], &[]), set(&[], &["fsync"])]
        {
            assert!(asked(&bad).is_err());
        }
    }
}
