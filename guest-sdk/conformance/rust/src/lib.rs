//! The conformance plugin: everything that a plugin can do, through this SDK.

mod probe;

capwasm_guest::plugin!();

use exports::capwasm::conformance::{probe::Guest as Probe, types::*};

struct Conformance;
export!(Conformance);

impl Probe for Conformance {
    fn run(operation: String, arguments: Vec<String>) -> Result<String, String> {
        probe::run(&operation, &arguments)
    }
}

macro_rules! echoes {
    ($($name:ident: $type:ty,)*) => {$(
        fn $name(value: $type) -> $type {
            value
        }
    )*};
}

impl Guest for Conformance {
    echoes! {
        echo_bool: bool,
        echo_u8: u8,
        echo_u16: u16,
        echo_u32: u32,
        echo_u64: u64,
        echo_s8: i8,
        echo_s16: i16,
        echo_s32: i32,
        echo_s64: i64,
        echo_f32: f32,
        echo_f64: f64,
        echo_char: char,
        echo_string: String,
        echo_bytes: Vec<u8>,
        echo_strings: Vec<String>,
        echo_numbers: Vec<u32>,
        echo_point: Point,
        echo_shape: Shape,
        echo_tuple: (u8, String, bool),
        echo_amount: Amount,
        echo_colour: Colour,
        echo_rights: Rights,
        echo_option: Option<u32>,
        echo_option_option: Option<Option<u32>>,
        echo_result: Result<u32, String>,
    }

    fn checked(value: u32, fail: Option<String>) -> Result<u32, String> {
        fail.map_or(Ok(value), Err)
    }

    fn describe(name: String, count: u32, colour: Colour) -> String {
        let colour = match colour {
            Colour::Red => "red",
            Colour::Green => "green",
            Colour::DarkBlue => "dark-blue",
        };
        format!("{name} {count} {colour}")
    }

    fn nothing() {}
}
