//! A script of the configuration: its text alone, or with what belongs to it.

use std::time::Duration;

use bus_schema::{Describe, Type, Value, encode_value};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A configured script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What the shell runs.
    pub command: String,
    /// How long it may take; without one, as long as the driver says.
    pub timeout: Option<Duration>,
    /// What it does, for people.
    pub description: String,
}

impl Script {
    /// A script without a timeout or description of its own.
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), timeout: None, description: String::new() }
    }
}

/// The long form.
#[derive(Serialize, Deserialize, Describe)]
struct Long {
    /// What the shell runs.
    command: String,
    /// How long it may take.
    #[serde(default)]
    timeout: Option<Duration>,
    /// What it does, for people.
    #[serde(default)]
    description: String,
}

/// Text or a mapping: there is no type of the wire for that but any.
impl Describe for Script {
    fn describe() -> Type {
        Type::Any
    }
}

impl<'de> Deserialize<'de> for Script {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        if let Value::Text(command) = value {
            return Ok(Self::new(command));
        }
        let Value::Map(_) = &value else {
            let text = "expected a script, or {command: script, timeout: 5m, description: text}";
            return Err(de::Error::custom(text));
        };
        // By way of JSON, so that a timeout is read as people write it.
        let value = Value::from_json(&Long::describe(), &value.to_json(&Type::Any));
        let bytes = encode_value(&value.map_err(de::Error::custom)?).map_err(de::Error::custom)?;
        let long: Long = rmp_serde::from_slice(&bytes).map_err(de::Error::custom)?;
        let Long { command, timeout, description } = long;
        Ok(Self { command, timeout, description })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(json: &str) -> Result<Script, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_script_is_text_or_a_mapping() {
        assert_eq!(script(r#""ls""#), Ok(Script::new("ls")));
        let long = Script {
            command: "ls".to_owned(),
            timeout: Some(Duration::from_secs(300)),
            description: "Lists.".to_owned(),
        };
        for timeout in ["300", "\"5m\""] {
            let json =
                format!(r#"{{"command": "ls", "timeout": {timeout}, "description": "Lists."}}"#);
            assert_eq!(script(&json), Ok(long.clone()), "{json}");
        }
        assert_eq!(script(r#"{"command": "ls"}"#), Ok(Script::new("ls")));
    }

    #[test]
    fn what_is_no_script_is_refused_with_what_would_be_right() {
        assert!(script("5").unwrap_err().contains("expected a script"));
        assert!(script(r#"{"comand": "ls"}"#).unwrap_err().contains("no field \"comand\""));
        assert!(script(r#"{"command": "ls", "timeout": "soon"}"#).unwrap_err().contains("1m30s"));
    }
}
