//! What `#[derive(Describe)]` says, against what serde does.

use std::time::Duration;

use bus_schema::{Describe, Field, Type, Value};
use serde::{Deserialize, Serialize};

/// How a port is set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    /// Where it is.
    device_path: String,
    #[serde(default = "usual_rate")]
    baud_rate: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(rename = "flow")]
    flow_control: Flow,
    note: Option<String>,
    #[serde(skip)]
    _opened: bool,
}

fn usual_rate() -> u32 {
    115_200
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case", rename_all_fields = "UPPERCASE")]
enum Flow {
    /// None at all.
    Unchecked,
    #[serde(rename = "rts/cts")]
    Hardware,
    XonXoff(u32),
    HalfDuplex {
        turn_ms: u32,
        pin: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
#[serde(default)]
struct Limits {
    volts: f64,
    trip: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { volts: 5.5, trip: Some(Duration::from_secs(1)) }
    }
}

fn fields(ty: Type) -> Vec<Field> {
    match ty {
        Type::Struct { fields, .. } => fields,
        other => panic!("{other} is no struct"),
    }
}

#[test]
fn a_derived_struct_is_described_as_serde_writes_it() {
    let shown: Vec<_> = fields(Port::describe()).iter().map(ToString::to_string).collect();
    let flow = "unchecked|rts/cts|xon-xoff|half-duplex";
    assert_eq!(
        shown,
        [
            "devicePath: text".to_owned(),
            "baudRate: u64 = 115200".to_owned(),
            "labels: list of text = []".to_owned(),
            format!("flow: {flow}"),
            "note: text? = null".to_owned(),
        ]
    );
    assert_eq!(fields(Port::describe())[0].help, "Where it is.");
    let limits: Vec<_> = fields(Limits::describe()).iter().map(ToString::to_string).collect();
    assert_eq!(limits, ["volts: f64 = 5.5", "trip: duration? = 1s"]);
}

#[test]
fn a_default_of_nothing_survives_the_wire() {
    let ty = Port::describe();
    let bytes = rmp_serde::to_vec_named(&ty).unwrap();
    assert_eq!(rmp_serde::from_slice::<Type>(&bytes).unwrap(), ty);
}

#[test]
fn what_fits_the_description_is_what_serde_reads() {
    let read = |json: &str| -> Port {
        let value = Value::from_json(&Port::describe(), &serde_json::from_str(json).unwrap());
        rmp_serde::from_slice(&rmp_serde::to_vec_named(&value.unwrap()).unwrap()).unwrap()
    };
    let mut port = Port {
        device_path: "/dev/ttyUSB0".to_owned(),
        baud_rate: 115_200,
        labels: vec![],
        flow_control: Flow::Unchecked,
        note: None,
        _opened: false,
    };
    assert_eq!(read(r#"{"devicePath": "/dev/ttyUSB0", "flow": "unchecked"}"#), port);
    for (json, flow) in [
        (r#""rts/cts""#, Flow::Hardware),
        (r#"{"xon-xoff": 3}"#, Flow::XonXoff(3)),
        (r#"{"half-duplex": {"TURN_MS": 5}}"#, Flow::HalfDuplex { turn_ms: 5, pin: None }),
    ] {
        port.flow_control = flow;
        let json = format!(r#"{{"devicePath": "/dev/ttyUSB0", "flow": {json}}}"#);
        assert_eq!(read(&json), port, "{json}");
        let shown = Value::of(&port).unwrap().to_json(&Port::describe());
        assert_eq!(read(&shown.to_string()), port, "{shown}");
    }
}

/// Every case that serde knows, against serde itself.
#[test]
fn names_are_cased_as_serde_cases_them() {
    macro_rules! check {
        ($($case:literal),*) => {$({
            #[derive(Serialize, Describe)]
            #[serde(rename_all = $case)]
            struct Fields { plain: u32, two_words: u32, v4_address: u32 }

            #[derive(Serialize, Describe)]
            #[serde(rename_all = $case)]
            enum Words { Plain, OneMore, HTTPServer, Ipv4 }

            let value = Value::of(&Fields { plain: 0, two_words: 0, v4_address: 0 }).unwrap();
            for field in fields(Fields::describe()) {
                assert!(value.get(&field.name).is_some(), "{}: {}", $case, field.name);
            }
            let Type::Enum { variants, .. } = Words::describe() else { panic!("no enum") };
            let words = [Words::Plain, Words::OneMore, Words::HTTPServer, Words::Ipv4];
            for (word, variant) in words.iter().zip(variants) {
                assert_eq!(Value::of(word), Some(Value::Text(variant.name)), "{}", $case);
            }
        })*};
    }
    check!(
        "lowercase",
        "UPPERCASE",
        "PascalCase",
        "camelCase",
        "snake_case",
        "SCREAMING_SNAKE_CASE",
        "kebab-case",
        "SCREAMING-KEBAB-CASE"
    );
}
