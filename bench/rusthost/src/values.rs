//! Values between Rust, the component model's `Val`, and JSON.

use serde_json::{Value, json};
use wasmtime::component::{ComponentType, Lift, Lower, Val};

/// The record that crosses.
#[derive(Clone, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Sample {
    pub id: u32,
    pub ratio: f64,
    pub name: String,
    pub live: bool,
}

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "a host that has no faults")]
pub enum KvError {
    #[component(name = "denied")]
    Denied,
    #[component(name = "invalid")]
    Invalid,
    #[component(name = "quota")]
    Quota,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "closed")]
    Closed,
    #[component(name = "unavailable")]
    Unavailable,
}

impl Sample {
    pub fn of(json: &Value) -> Sample {
        Sample {
            id: json["id"].as_u64().unwrap_or(0) as u32,
            ratio: json["ratio"].as_f64().unwrap_or(0.0),
            name: json["name"].as_str().unwrap_or("").to_string(),
            live: json["live"].as_bool().unwrap_or(false),
        }
    }

    pub fn json(&self) -> Value {
        json!({"id": self.id, "ratio": self.ratio, "name": self.name, "live": self.live})
    }

    pub fn val(&self) -> Val {
        Val::Record(vec![
            ("id".into(), Val::U32(self.id)),
            ("ratio".into(), Val::Float64(self.ratio)),
            ("name".into(), Val::String(self.name.clone())),
            ("live".into(), Val::Bool(self.live)),
        ])
    }

    pub fn of_val(val: Val) -> Sample {
        let mut sample = Sample {
            id: 0,
            ratio: 0.0,
            name: String::new(),
            live: false,
        };
        if let Val::Record(fields) = val {
            for (_, value) in fields {
                match value {
                    Val::U32(id) => sample.id = id,
                    Val::Float64(ratio) => sample.ratio = ratio,
                    Val::String(name) => sample.name = name,
                    Val::Bool(live) => sample.live = live,
                    _ => {}
                }
            }
        }
        sample
    }
}

pub fn bytes_of(val: &Val) -> Vec<u8> {
    match val {
        Val::List(items) => items
            .iter()
            .map(|v| if let Val::U8(b) = v { *b } else { 0 })
            .collect(),
        _ => vec![],
    }
}

pub fn u32s_of(val: &Val) -> Vec<u32> {
    match val {
        Val::List(items) => items
            .iter()
            .map(|v| if let Val::U32(n) = v { *n } else { 0 })
            .collect(),
        _ => vec![],
    }
}

pub fn f64s_of(val: &Val) -> Vec<f64> {
    match val {
        Val::List(items) => items
            .iter()
            .map(|v| if let Val::Float64(n) = v { *n } else { 0.0 })
            .collect(),
        _ => vec![],
    }
}

pub fn number_of(val: &Val) -> u32 {
    if let Val::U32(n) = val { *n } else { 0 }
}
