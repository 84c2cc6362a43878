//! What a safekeeper refuses to start with: one sentence on stderr, an exit code that is not 0, nothing touched.

mod support;

use std::process::Output;

use strata_regress::port_lease::PortLease;
use support::{CLUSTER, Safekeeper, binary};

fn run(args: &[&str]) -> Output {
    binary().args(args).output().expect("the binary starts")
}

fn refusal(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    let sentence = text.lines().last().expect("it says why").to_owned();
    assert!(sentence.starts_with("strata-safekeeper: "), "{text}");
    sentence
}

#[test]
fn bad_settings_are_named() {
    let root = tempfile::tempdir().expect("temporary folder");
    let dir = root.path().join("data").display().to_string();
    let file = root.path().join("sk.toml");
    let good = format!("id = 1\ncluster = '{CLUSTER}'\nlisten = '127.0.0.1:0'\ndir = '{dir}'\n");
    let path = file.display().to_string();
    let with = |text: &str| {
        std::fs::write(&file, good.clone() + text).expect("written");
        refusal(&["--config", &path])
    };
    assert!(with("colour = 'red'\n").contains("unknown field `colour`"));
    assert!(with("wal_keep_bytes = 'much'\n").contains("'wal_keep_bytes'"));
    assert!(with("log = 'a=b=c=d'\n").contains("setting 'log'"));
    assert!(refusal(&["--id", "1"]).contains("'cluster' is missing"));
    assert!(!root.path().join("data").exists(), "nothing was touched");
}

#[test]
fn folders_of_others_and_taken_ports_are_refused() {
    let root = tempfile::tempdir().expect("temporary folder");
    let dir = root.path().join("data");
    let path = dir.display().to_string();
    let ports = PortLease::take().expect("free ports");
    let mut first = Safekeeper::start(1, &dir, &ports, &[]);
    let other = "ffffffffffffffffffffffffffffffff";
    let with = |id: &str, cluster: &str, listen: &str, dir: &str| {
        refusal(&["--id", id, "--cluster", cluster, "--listen", listen, "--dir", dir])
    };
    assert!(with("1", CLUSTER, "127.0.0.1:0", &path).contains("is in use by another process"));
    let empty = root.path().join("empty").display().to_string();
    assert!(with("1", CLUSTER, &first.listen, &empty).contains("is taken by another process"));
    first.kill();
    assert!(with("1", other, "127.0.0.1:0", &path).contains("belongs to safekeeper 1 of cluster 0011"));
    assert!(with("2", CLUSTER, "127.0.0.1:0", &path).contains("not to safekeeper 2"));
    first.restart();
    assert!(first.stop(), "SIGTERM is a clean end");
}

#[test]
fn the_schema_is_printed_without_settings() {
    let output = run(&["--print-config-schema"]);
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(schema["properties"]["wal_keep_bytes"]["default"], 67_108_864);
    assert_eq!(schema["required"], serde_json::json!(["id", "cluster", "listen", "dir"]));
}
