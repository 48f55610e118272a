//! What __NAME__ does: each function is one of wit/world.wit.

use capwasm_guest::{kv, log};

capwasm_guest::plugin!();

use exports::__SPACE__::__SNAKE__::api::{Greeting, Guest};

struct Plugin;
export!(Plugin);

impl Guest for Plugin {
    fn greet(name: String) -> Result<Greeting, String> {
        if name.is_empty() {
            return Err("a name, please".into());
        }
        let count = kv::increment(&format!("seen/{name}"), 1)?;
        log::info("greeted", &[("name", &name)]);
        Ok(Greeting { text: format!("Hello, {name}!"), before: count as u32 - 1 })
    }
}
