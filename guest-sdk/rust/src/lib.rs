#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod clock;
pub mod config;
mod error;
pub mod exec;
pub mod fetch;
pub mod fs;
pub mod kv;
pub mod log;
pub mod random;
pub mod secrets;

pub use error::{Error, ErrorKind, Result};

/// What `capwasm:*` offers, as it is in WIT.  The modules beside this one are easier to use.
#[allow(unsafe_code, missing_docs, rustdoc::all)]
pub mod bindings;

#[doc(hidden)]
pub use wit_bindgen;

/// Makes the types and traits of the world in `wit/`, and the macro `export!`.
///
/// Each interface that the world exports is a module below `exports`, with a trait `Guest` whose
/// functions the plugin implements.
///
/// ```ignore
/// capwasm_guest::plugin!(); // or plugin!("greeter"), if wit/ has more than one world
///
/// use exports::acme::greeter::api::{Greeting, Guest};
///
/// struct Greeter;
/// export!(Greeter);
///
/// impl Guest for Greeter {
///     fn greet(name: String) -> Result<Greeting, String> {
///         Ok(Greeting { text: format!("Hello, {name}!"), before: 0 })
///     }
/// }
/// ```
#[macro_export]
macro_rules! plugin {
    () => {
        $crate::wit_bindgen::generate!({
            path: "wit",
            runtime_path: "::capwasm_guest::wit_bindgen::rt",
            generate_all,
        });
    };
    ($world:tt) => {
        $crate::wit_bindgen::generate!({
            world: $world,
            path: "wit",
            runtime_path: "::capwasm_guest::wit_bindgen::rt",
            generate_all,
        });
    };
}
