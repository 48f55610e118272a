//! What needs a process of its own.  Each prints one line of JSON: what was measured, by name.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use wasmtime::component::{Component, ComponentExportIndex, Instance, Linker, Val};
use wasmtime::{Result, Store, bail, format_err};

use crate::guests::Guests;
use crate::host::{Host, Rig};

/// A real plugin from nothing, to its first call and on.  If `cold`, it is compiled, and what came
/// of that is left for a run that isn't.
pub fn start(spec: &Value) -> Result<()> {
    let begun = Instant::now();
    let rig = Rig::new(true, 0)?.with_wasi();
    let path = |key: &str| spec[key].as_str().unwrap_or("").to_string();
    let cold = spec["cold"] == true;
    let component = if cold {
        Component::from_file(&rig.engine, path("path"))?
    } else {
        // SAFETY: a cold run wrote it, with an engine of the same configuration.
        unsafe { Component::deserialize_file(&rig.engine, path("compiled"))? }
    };
    let ready = rig.linker(&component)?.instantiate_pre(&component)?;
    let mut store = rig.store()?;
    let instance = ready.instantiate(&mut store)?;
    let started = begun.elapsed();
    if cold {
        fs::write(path("compiled"), component.serialize()?)?;
    }

    let inner = match spec["interface"].as_str() {
        Some(name) => component.get_export_index(None, name),
        None => None,
    };
    let function = spec["function"].as_str().unwrap_or("");
    let index = component
        .get_export_index(inner.as_ref(), function)
        .ok_or_else(|| format_err!("no function {function}"))?;
    let first = Instant::now();
    call(&rig, &mut store, &instance, &index, spec)?;
    let first = first.elapsed();

    let (mut times, mut seconds) = (vec![], vec![]);
    for _ in 0..spec["calls"].as_u64().unwrap_or(1) {
        let begun = Instant::now();
        call(&rig, &mut store, &instance, &index, spec)?;
        times.push(begun.elapsed().as_secs_f64());
    }
    for _ in 0..spec["instances"].as_u64().unwrap_or(1) {
        let begun = Instant::now();
        let mut store = rig.store()?;
        ready.instantiate(&mut store)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    say(json!({
        "start": started.as_secs_f64(),
        "first-call": first.as_secs_f64(),
        "call": median(times),
        "second-instance": seconds[0],
        "instance": median(seconds),
    }))
}

fn call(
    rig: &Rig,
    store: &mut Store<Host>,
    instance: &Instance,
    index: &ComponentExportIndex,
    spec: &Value,
) -> Result<()> {
    let func = instance
        .get_func(&mut *store, index)
        .ok_or_else(|| format_err!("not a function"))?;
    let args: Vec<Val> = spec["args"]
        .as_array()
        .into_iter()
        .flatten()
        .map(argument)
        .collect();
    let mut results = [Val::Bool(false)];
    rig.arm(store)?;
    func.call(store, &args, &mut results)?;
    let found = match &results[0] {
        Val::U32(n) => json!(n),
        Val::Result(Err(Some(text))) => match &**text {
            Val::String(text) => json!({"error": text}),
            other => bail!("{other:?}"),
        },
        other => bail!("{other:?}"),
    };
    if found != spec["expected"] {
        bail!("{found} is not {}", spec["expected"]);
    }
    Ok(())
}

fn argument(json: &Value) -> Val {
    match json {
        Value::String(text) => Val::String(text.clone()),
        Value::Array(items) => Val::List(items.iter().map(argument).collect()),
        other => Val::U32(other.as_u64().unwrap_or(0) as u32),
    }
}

/// That many pooled instances of echo.wat, each called once and kept.
pub fn idle(guests: &Path, count: u32) -> Result<()> {
    let rig = Rig::new(true, count + 8)?;
    let component = Guests::new(guests).component(&rig, "echo")?;
    let ready = Linker::<Host>::new(&rig.engine).instantiate_pre(&component)?;
    let one = || -> Result<Store<Host>> {
        let mut store = rig.store()?;
        let instance = ready.instantiate(&mut store)?;
        let func = instance.get_typed_func::<(u32, u32), (u32,)>(&mut store, "add")?;
        if func.call(&mut store, (2, 40))?.0 != 42 {
            bail!("not 42");
        }
        Ok(store)
    };
    let _warm = [one()?, one()?];
    let mut kept = Vec::with_capacity(count as usize);
    let (before, begun) = (resident_kib()?, Instant::now());
    for _ in 0..count {
        kept.push(one()?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = resident_kib()?;
    say(json!({
        "seconds": seconds / count as f64,
        "kib": after.saturating_sub(before) as f64 / count as f64,
        "total-kib": after,
    }))
}

/// How much more is resident after `count` short calls, and what one took.
pub fn calls(guests: &Path, count: u32) -> Result<()> {
    let rig = Rig::new(true, 0)?;
    let component = Guests::new(guests).component(&rig, "echo")?;
    let mut store = rig.store()?;
    let instance = Linker::<Host>::new(&rig.engine).instantiate(&mut store, &component)?;
    let func = instance.get_typed_func::<(u32, u32), (u32,)>(&mut store, "add")?;
    let mut some = |count: u32| -> Result<()> {
        for _ in 0..count {
            rig.arm(&mut store)?;
            if func.call(&mut store, (2, 40))?.0 != 42 {
                bail!("not 42");
            }
        }
        Ok(())
    };
    some(count / 10)?;
    let (before, begun) = (resident_kib()?, Instant::now());
    some(count)?;
    let seconds = begun.elapsed().as_secs_f64();
    say(json!({
        "seconds": seconds / count as f64,
        "grown-kib": resident_kib()?.saturating_sub(before),
    }))
}

fn resident_kib() -> Result<u64> {
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        if let Some(rest) = line.strip_prefix("VmRSS:") {
            return Ok(rest.trim().trim_end_matches(" kB").parse()?);
        }
    }
    bail!("no VmRSS")
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn say(found: Value) -> Result<()> {
    println!("{found}");
    Ok(())
}
