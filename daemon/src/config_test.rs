//! Settings: order of layers, what is refused and in which words, and that the schema lists what is read.

use super::*;

crate::daemon_config! {
    /// A daemon of this test.
    pub struct Toy, env "TOY" {
        /// How many.
        amount: u32, Integer = "3";
        /// Whether.
        eager: bool, Boolean = "false";
        /// Whom.
        peers: Vec<String>, TextList = "";
    }
}

const CLUSTER: &str = "00112233445566778899aabbccddeeff";

fn load_from(file: Option<&str>, flags: &[&str], env: &[(&str, &str)]) -> Result<Toy, ConfigError> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut args = vec!["toy".to_owned()];
    if let Some(text) = file {
        let path = folder.path().join("toy.toml");
        std::fs::write(&path, text).expect("written");
        args.extend(["--config".to_owned(), path.display().to_string()]);
    }
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let matches =
        command("toy", "", "0".to_owned(), Toy::FIELDS).try_get_matches_from(args).expect("known flags");
    load(&matches, |name| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
}

fn complete() -> String {
    format!("id = 1\ncluster = '{CLUSTER}'\nlisten = '127.0.0.1:0'\ndir = '/tmp/x'\n")
}

#[test]
fn later_layers_win() {
    let file = complete() + "amount = 4\npeers = ['a', 'b']\n";
    let toy = load_from(Some(&file), &[], &[]).expect("valid");
    assert_eq!((toy.amount, toy.eager, toy.peers.len(), toy.id), (4, false, 2, NodeId(1)));
    let toy = load_from(Some(&file), &[], &[("TOY_AMOUNT", "5"), ("TOY_PEERS", "c")]).expect("valid");
    assert_eq!((toy.amount, toy.peers), (5, vec!["c".to_owned()]));
    let flags = ["--amount", "6", "--eager", "true", "--peers", "x, y,"];
    let toy = load_from(Some(&file), &flags, &[("TOY_AMOUNT", "5")]).expect("valid");
    assert_eq!((toy.amount, toy.eager, toy.peers), (6, true, vec!["x".to_owned(), "y".to_owned()]));
}

#[test]
fn refusals_are_one_sentence_that_names_the_setting() {
    let refusal = |file: &str, flags: &[&str]| {
        let text = load_from(Some(file), flags, &[]).expect_err("refused").to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    let unknown = refusal(&(complete() + "amonut = 4\n"), &[]);
    assert!(unknown.contains("unknown field `amonut`"), "{unknown}");
    let missing = refusal("id = 1\n", &[]);
    assert!(missing.contains("'cluster' is missing") && missing.contains("TOY_CLUSTER"), "{missing}");
    let kind = refusal(&(complete() + "amount = 'many'\n"), &[]);
    assert!(kind.contains("'amount'") && kind.contains("invalid type"), "{kind}");
    let flag = refusal(&complete(), &["--amount", "many"]);
    assert!(flag.contains("'amount' cannot be 'many'"), "{flag}");
    let range = refusal(&(complete() + "amount = -1\n"), &[]);
    assert!(range.contains("'amount'"), "{range}");
    let syntax = refusal("id = = 1\n", &[]);
    assert!(syntax.contains("not valid TOML"), "{syntax}");
    let cluster = refusal("id = 1\ncluster = 'x'\nlisten = ''\ndir = ''\n", &[]);
    assert!(cluster.contains("32 hex digits"), "{cluster}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let args = ["toy", "--config", "/does/not/exist.toml"];
    let matches =
        command("toy", "", "0".to_owned(), Toy::FIELDS).try_get_matches_from(args).expect("known flags");
    let text = load::<Toy>(&matches, |_| None).expect_err("refused").to_string();
    assert!(text.starts_with("cannot read the configuration file /does/not/exist.toml"), "{text}");
}

#[test]
fn the_schema_lists_every_field_with_its_default() {
    let schema = schema("toy", "TOY", Toy::FIELDS);
    assert_eq!(schema["properties"].as_object().expect("object").len(), Toy::FIELDS.len());
    assert_eq!(schema["properties"]["amount"]["default"], json!(3));
    assert_eq!(schema["properties"]["amount"]["description"], json!("How many."));
    assert_eq!(schema["required"], json!(["id", "cluster", "listen", "dir"]));
    assert_eq!(schema["additionalProperties"], json!(false));
}
