//! What crosses comes back.

use std::hint::black_box;

use serde_json::Value;
use wasmtime::component::Val;
use wasmtime::{Result, bail};

use crate::guests::Alive;
use crate::timed::{Job, number, raw, work};
use crate::values::{Sample, bytes_of, f64s_of, number_of, u32s_of};

/// From and to Rust types that the compiler knows.
pub fn typed(mut a: Alive, name: &str, request: &Value, payload: Vec<u8>) -> Result<Box<dyn Job>> {
    // Arguments live as long as the process: `TypedFunc` names the lifetime of what it borrows.
    match name {
        "add" => {
            let func = a.typed::<(u32, u32), (u32,)>("add")?;
            work(move || a.call(&func, black_box((2, 40))), number)
        }
        "string" => {
            let text: &'static str = String::from_utf8(payload)?.leak();
            let name = if request["copy"] == true {
                "copy-string"
            } else {
                "echo-string"
            };
            let func = a.typed::<(&'static str,), (String,)>(name)?;
            work(move || a.call(&func, (text,)), |s| raw(s.into_bytes()))
        }
        "data" => {
            let data: &'static [u8] = payload.leak();
            let func = a.typed::<(&'static [u8],), (Vec<u8>,)>("echo-bytes")?;
            work(move || a.call(&func, (data,)), raw)
        }
        "u32s" => {
            let items: &'static [u32] = u32s(&payload).leak();
            let func = a.typed::<(&'static [u32],), (Vec<u32>,)>("echo-u32s")?;
            work(
                move || a.call(&func, (items,)),
                |n| raw(n.iter().flat_map(|n| n.to_le_bytes()).collect()),
            )
        }
        "f64s" => {
            let items: &'static [f64] = f64s(&payload).leak();
            let func = a.typed::<(&'static [f64],), (Vec<f64>,)>("echo-f64s")?;
            work(
                move || a.call(&func, (items,)),
                |n| raw(n.iter().flat_map(|n| n.to_le_bytes()).collect()),
            )
        }
        "record" => {
            let sample: &'static Sample = Box::leak(Box::new(Sample::of(&request["sample"])));
            let func = a.typed::<(&'static Sample,), (Sample,)>("echo-record")?;
            work(move || a.call(&func, (sample,)), |s| (s.json(), vec![]))
        }
        "records" => {
            let samples: &'static [Sample] = samples(request).leak();
            let func = a.typed::<(&'static [Sample],), (Vec<Sample>,)>("echo-records")?;
            work(
                move || a.call(&func, (samples,)),
                |s| (s.iter().map(Sample::json).collect(), vec![]),
            )
        }
        _ => bail!("no such job: {name}"),
    }
}

/// The same from and to the same Rust types, by way of `Val`.
pub fn val(mut a: Alive, name: &str, request: &Value, payload: Vec<u8>) -> Result<Box<dyn Job>> {
    match name {
        "add" => {
            let func = a.func("add")?;
            work(
                move || Ok(number_of(&a.call_val(&func, &[Val::U32(2), Val::U32(40)])?)),
                number,
            )
        }
        "string" => {
            let text = String::from_utf8(payload)?;
            let func = a.func(if request["copy"] == true {
                "copy-string"
            } else {
                "echo-string"
            })?;
            work(
                move || match a.call_val(&func, &[Val::String(text.clone())])? {
                    Val::String(text) => Ok(text),
                    other => bail!("{other:?}"),
                },
                |s| raw(s.into_bytes()),
            )
        }
        "data" => {
            let func = a.func("echo-bytes")?;
            work(
                move || {
                    let list = Val::List(payload.iter().map(|b| Val::U8(*b)).collect());
                    Ok(bytes_of(&a.call_val(&func, &[list])?))
                },
                raw,
            )
        }
        "u32s" => {
            let (items, func) = (u32s(&payload), a.func("echo-u32s")?);
            work(
                move || {
                    let list = Val::List(items.iter().map(|n| Val::U32(*n)).collect());
                    Ok(u32s_of(&a.call_val(&func, &[list])?))
                },
                |n| raw(n.iter().flat_map(|n| n.to_le_bytes()).collect()),
            )
        }
        "f64s" => {
            let (items, func) = (f64s(&payload), a.func("echo-f64s")?);
            work(
                move || {
                    let list = Val::List(items.iter().map(|n| Val::Float64(*n)).collect());
                    Ok(f64s_of(&a.call_val(&func, &[list])?))
                },
                |n| raw(n.iter().flat_map(|n| n.to_le_bytes()).collect()),
            )
        }
        "record" => {
            let (sample, func) = (Sample::of(&request["sample"]), a.func("echo-record")?);
            work(
                move || Ok(Sample::of_val(a.call_val(&func, &[sample.val()])?)),
                |s| (s.json(), vec![]),
            )
        }
        "records" => {
            let (samples, func) = (samples(request), a.func("echo-records")?);
            work(
                move || match a.call_val(
                    &func,
                    &[Val::List(samples.iter().map(Sample::val).collect())],
                )? {
                    Val::List(found) => {
                        Ok(found.into_iter().map(Sample::of_val).collect::<Vec<_>>())
                    }
                    other => bail!("{other:?}"),
                },
                |s| (s.iter().map(Sample::json).collect(), vec![]),
            )
        }
        _ => bail!("no such job: {name}"),
    }
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn samples(request: &Value) -> Vec<Sample> {
    request["samples"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Sample::of)
        .collect()
}
