//! Work that is run in samples.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};
use wasmtime::Result;

/// Seconds for all runs, and what the last one gave.
pub struct Timed {
    pub wall: f64,
    pub cpu: f64,
    pub value: Value,
    pub payload: Vec<u8>,
}

pub trait Job {
    fn sample(&mut self, runs: u64) -> Result<Timed>;
}

/// What a run gives, for the harness to look at: JSON, or bytes.
pub type Plain = (Value, Vec<u8>);

struct Work<F, P> {
    run: F,
    plain: P,
}

impl<T, F: FnMut() -> Result<T>, P: Fn(T) -> Plain> Job for Work<F, P> {
    fn sample(&mut self, runs: u64) -> Result<Timed> {
        let (cpu, start) = (processor_seconds(), Instant::now());
        for _ in 1..runs {
            black_box((self.run)()?);
        }
        let last = (self.run)()?;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), processor_seconds() - cpu);
        let (value, payload) = (self.plain)(last);
        Ok(Timed {
            wall,
            cpu,
            value,
            payload,
        })
    }
}

/// A job of a run and of what it gives.
pub fn work<T: 'static>(
    run: impl FnMut() -> Result<T> + 'static,
    plain: impl Fn(T) -> Plain + 'static,
) -> Result<Box<dyn Job>> {
    Ok(Box::new(Work { run, plain }))
}

pub fn number(value: u32) -> Plain {
    (json!(value), vec![])
}

pub fn raw(payload: Vec<u8>) -> Plain {
    (Value::Null, payload)
}

/// Processor seconds of this process, all threads together.
fn processor_seconds() -> f64 {
    let mut spent = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists, and `spent` is a timespec of this frame.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut spent) };
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}
