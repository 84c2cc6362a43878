//! Settings of a daemon: one struct per daemon, filled from defaults, a TOML file, the environment and flags, in this
//! order; the later wins. A struct is declared with [`daemon_config!`], which also lists its fields, so that
//! flags, `--help`, environment names and the schema can never differ from what is read.
//!
//! Nothing unknown is ignored: a key that no field has is refused by name, from whatever layer it comes.

use clap::{Arg, ArgAction, Command};
use serde::de::DeserializeOwned;
use serde_json::json;
use strata_common::{ClusterId, NodeId};
use toml::{Table, Value};

/// What a field holds, for reading flags and environment and for the schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
    /// A list of texts; in flags and environment its items are separated by commas.
    TextList,
}

/// One field of a daemon's settings.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// As in a flag; a field without default must be given.
    pub default: Option<&'static str>,
    pub about: &'static str,
}

impl Field {
    fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    fn env(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.name.to_uppercase())
    }

    fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let bad =
            |expected: &'static str| ConfigError::Value { field: self.name, text: text.to_owned(), expected };
        match self.kind {
            Kind::Text => Ok(Value::String(text.to_owned())),
            Kind::Integer => text.parse().map(Value::Integer).map_err(|_| bad("a whole number")),
            Kind::Boolean => text.parse().map(Value::Boolean).map_err(|_| bad("true or false")),
            Kind::TextList => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
        }
    }
}

/// Settings that every daemon has; the fields of these names in its struct.
#[derive(Clone, Debug)]
pub struct Shared {
    pub id: NodeId,
    pub cluster: ClusterId,
    pub listen: String,
    pub http: String,
    pub dir: std::path::PathBuf,
    pub log: String,
}

/// Implemented by [`daemon_config!`].
pub trait DaemonConfig: DeserializeOwned {
    const ENV_PREFIX: &'static str;
    const FIELDS: &'static [Field];

    fn shared(&self) -> Shared;
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("the configuration file {path} is not valid TOML: {message}")]
    Syntax { path: String, message: String },
    #[error("setting '{field}' cannot be '{text}': {expected} is expected")]
    Value { field: &'static str, text: String, expected: &'static str },
    #[error("setting '{field}' is missing: give it in the configuration file, as --{flag} or as {env}")]
    Missing { field: &'static str, flag: String, env: String },
    #[error("bad setting: {0}")]
    Content(String),
}

/// Declares a daemon's settings. The shared fields (`id`, `cluster`, `listen`, `http`, `dir`, `log`) are added.
///
/// Each field: doc comment, name, type, [`Kind`], and optionally `=` and its default as in a flag.
#[macro_export]
macro_rules! daemon_config {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident, env $prefix:literal {
            $( $(#[doc = $doc:literal])* $field:ident: $type:ty, $kind:ident $(= $default:literal)?; )*
        }
    ) => {
        $crate::daemon_config! { @emit
            $(#[doc = $about])*
            pub struct $name, env $prefix {
                #[doc = " Number of this node, unique among the nodes of its kind in the cluster."]
                id: $crate::reexport::NodeId, Integer;
                #[doc = " Id of the cluster, 32 hex digits; a data folder of another cluster is refused."]
                cluster: $crate::reexport::ClusterId, Text;
                #[doc = " Address of the service, host:port; port 0 takes a free one."]
                listen: String, Text;
                #[doc = " Address of /metrics and /status, host:port; port 0 takes a free one."]
                http: String, Text = "127.0.0.1:0";
                #[doc = " Data folder. It holds data only and may be emptied while the daemon is down."]
                dir: std::path::PathBuf, Text;
                #[doc = " What is logged: a level, or target=level separated by commas."]
                log: String, Text = "info";
                $( $(#[doc = $doc])* $field: $type, $kind $(= $default)?; )*
            }
        }
    };
    (@emit
        $(#[doc = $about:literal])*
        pub struct $name:ident, env $prefix:literal {
            $( $(#[doc = $doc:literal])* $field:ident: $type:ty, $kind:ident $(= $default:literal)?; )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, $crate::reexport::serde::Deserialize)]
        #[serde(crate = "strata_daemon::reexport::serde", deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl $crate::config::DaemonConfig for $name {
            const ENV_PREFIX: &'static str = $prefix;
            const FIELDS: &'static [$crate::config::Field] = &[
                $( $crate::config::Field {
                    name: stringify!($field),
                    kind: $crate::config::Kind::$kind,
                    default: $crate::daemon_config!(@default $($default)?),
                    about: concat!($($doc),*),
                }, )*
            ];

            fn shared(&self) -> $crate::config::Shared {
                $crate::config::Shared {
                    id: self.id,
                    cluster: self.cluster,
                    listen: self.listen.clone(),
                    http: self.http.clone(),
                    dir: self.dir.clone(),
                    log: self.log.clone(),
                }
            }
        }
    };
    (@default $default:literal) => { Some($default) };
    (@default) => { None };
}

/// The command line that `fields` make, with `--config` and `--print-config-schema`.
///
/// Made once per process: the names of flags are leaked, as clap wants them to live for ever.
pub fn command(name: &'static str, about: &'static str, version: String, fields: &[Field]) -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("Configuration file (TOML)");
    let schema = Arg::new("print-config-schema").long("print-config-schema").action(ArgAction::SetTrue);
    let schema = schema.help("Print the JSON schema of the configuration file and exit");
    let args = fields.iter().map(|field| {
        let arg =
            Arg::new(field.name).long(&*field.flag().leak()).value_name("VALUE").help(field.about.trim());
        match field.default {
            Some(default) if !default.is_empty() => {
                arg.help(format!("{} [default: {default}]", field.about.trim()))
            }
            _ => arg,
        }
    });
    Command::new(name)
        .about(about)
        .version(&*version.leak())
        .arg(file)
        .arg(schema)
        .args(args.collect::<Vec<_>>())
}

/// Reads settings in the order of layers: defaults, file, environment, flags.
///
/// `env` looks up one environment variable; it is a parameter so that tests need not change the process's.
pub fn load<C: DaemonConfig>(
    matches: &clap::ArgMatches,
    env: impl Fn(&str) -> Option<String>,
) -> Result<C, ConfigError> {
    let mut table = Table::new();
    for field in C::FIELDS {
        if let Some(default) = field.default {
            table.insert(field.name.to_owned(), field.parse(default)?);
        }
    }
    if let Some(path) = matches.get_one::<String>("config") {
        let read = |error| ConfigError::Read { path: path.clone(), error };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let syntax =
            |e: toml::de::Error| ConfigError::Syntax { path: path.clone(), message: one_line(e.message()) };
        table.extend(text.parse::<Table>().map_err(syntax)?);
    }
    for field in C::FIELDS {
        let flag = matches.get_one::<String>(field.name).cloned();
        if let Some(text) = flag.or_else(|| env(&field.env(C::ENV_PREFIX))) {
            table.insert(field.name.to_owned(), field.parse(&text)?);
        }
        if !table.contains_key(field.name) {
            let env = field.env(C::ENV_PREFIX);
            return Err(ConfigError::Missing { field: field.name, flag: field.flag(), env });
        }
    }
    table.try_into().map_err(|e: toml::de::Error| ConfigError::Content(describe(&e)))
}

fn describe(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let key = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("in `").and_then(|rest| rest.strip_suffix('`')));
    let message = one_line(error.message());
    key.map_or(message.clone(), |key| format!("'{key}': {message}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// JSON schema (draft 2020-12) of the configuration file that `fields` make.
pub fn schema(title: &str, env_prefix: &str, fields: &[Field]) -> serde_json::Value {
    let mut properties = serde_json::Map::new();
    for field in fields {
        let mut property = match field.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Integer => json!({"type": "integer"}),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::TextList => json!({"type": "array", "items": {"type": "string"}}),
        };
        property["description"] = json!(field.about.trim());
        property["x-flag"] = json!(format!("--{}", field.flag()));
        property["x-env"] = json!(field.env(env_prefix));
        if let Some(default) = field.default.and_then(|text| field.parse(text).ok()) {
            property["default"] = json!(default);
        }
        properties.insert(field.name.to_owned(), property);
    }
    let required: Vec<_> = fields.iter().filter(|f| f.default.is_none()).map(|f| f.name).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
