//! The job that a request asks for.

use std::path::PathBuf;

use serde_json::{Value, json};
use wasmtime::component::{Component, InstancePre, Linker, Val};
use wasmtime::{Result, bail, format_err};

use crate::echo;
use crate::guests::{Alive, Guests};
use crate::host::{Host, Rig};
use crate::threads::threads;
use crate::timed::{Job, number, work};
use crate::values::number_of;

/// The job that a request names.
pub fn make(guests: &Guests, request: &Value, payload: Vec<u8>) -> Result<Box<dyn Job>> {
    let name = request["make"].as_str().unwrap_or("");
    let typed = request["how"] == "typed";
    let count = |key: &str| request[key].as_u64().unwrap_or(0) as u32;
    match name {
        "fresh" => return fresh(guests, typed),
        "start" => return start(guests, request),
        "load" => return load(request),
        _ => {}
    }
    let made = guests.made(request["guarded"] == true)?;
    match name {
        "spin" => {
            return threads(
                made,
                guests.echo(made)?,
                "spin",
                (count("rounds"), 1),
                &count,
            );
        }
        "short" => return threads(made, guests.echo(made)?, "add", (2, count("calls")), &count),
        "times" | "texts" | "values" => {
            let linker = if typed {
                made.rig.typed_linker()?
            } else {
                made.rig.val_linker()?
            };
            let mut alive = Alive::new(&made.rig, &linker, guests.host(made)?)?;
            if name == "values" {
                let keep = alive.typed::<(u32,), (bool,)>("keep")?;
                if !alive.call(&keep, (count("size"),))? {
                    bail!("the value was not kept");
                }
            }
            let func = alive.typed::<(u32,), (u32,)>(name)?;
            let calls = count("count");
            return work(move || alive.call(&func, (calls,)), number);
        }
        _ => {}
    }
    let linker = Linker::new(&made.rig.engine);
    let alive = Alive::new(&made.rig, &linker, guests.echo(made)?)?;
    if typed {
        echo::typed(alive, name, request, payload)
    } else {
        echo::val(alive, name, request, payload)
    }
}

/// A pooled instance of host.wat with its imports linked, to its first call, and its end.
fn fresh(guests: &Guests, typed: bool) -> Result<Box<dyn Job>> {
    let made = guests.pooled()?;
    let component = guests.host(made)?;
    let linker = if typed {
        made.rig.typed_linker()?
    } else {
        made.rig.val_linker()?
    };
    let (ready, rig) = (linker.instantiate_pre(component)?, made.rig.clone());
    let add = component
        .get_export_index(None, "add")
        .ok_or_else(|| format_err!("no add"))?;
    let typed_run = {
        let (ready, rig) = (ready.clone(), rig.clone());
        move || {
            let mut store = rig.store()?;
            let instance = ready.instantiate(&mut store)?;
            let func = instance.get_typed_func::<(u32, u32), (u32,)>(&mut store, &add)?;
            Ok(func.call(&mut store, (2, 40))?.0)
        }
    };
    if typed {
        return work(typed_run, number);
    }
    work(
        move || {
            let mut store = rig.store()?;
            let instance = ready.instantiate(&mut store)?;
            let func = instance
                .get_func(&mut store, add)
                .ok_or_else(|| format_err!("no add"))?;
            let mut results = [Val::Bool(false)];
            func.call(&mut store, &[Val::U32(2), Val::U32(40)], &mut results)?;
            Ok(number_of(&results[0]))
        },
        number,
    )
}

/// A pooled instance of a plugin, and its end.
fn start(guests: &Guests, request: &Value) -> Result<Box<dyn Job>> {
    let rig = guests.pooled()?.rig.clone().with_wasi();
    let path = request["path"].as_str().unwrap_or("");
    let component = Component::from_file(&rig.engine, path)?;
    let ready: InstancePre<Host> = rig.linker(&component)?.instantiate_pre(&component)?;
    work(
        move || {
            let mut store = rig.store()?;
            ready.instantiate(&mut store)?;
            Ok(true)
        },
        |done| (json!(done), vec![]),
    )
}

/// From what was compiled before to an instance; nothing is verified.
fn load(request: &Value) -> Result<Box<dyn Job>> {
    let rig = Rig::new(true, 0)?;
    let path = request["path"].as_str().unwrap_or("").to_string();
    let kept = PathBuf::from(format!("{path}.compiled"));
    std::fs::write(
        &kept,
        Component::from_file(&rig.engine, &path)?.serialize()?,
    )?;
    work(
        move || {
            // SAFETY: written above, by this engine.
            let component = unsafe { Component::deserialize_file(&rig.engine, &kept)? };
            let linker = Linker::<Host>::new(&rig.engine);
            linker.instantiate(rig.store()?, &component)?;
            Ok(true)
        },
        |done| (json!(done), vec![]),
    )
}
