//! Several threads, with an instance each.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::json;
use wasmtime::component::{Component, Linker};
use wasmtime::{Result, format_err};

use crate::guests::{Alive, Made};
use crate::timed::{Job, work};

/// `call` on an instance for each of some threads that stay; gives what each computed.
pub fn threads(
    made: &Made,
    echo: &Component,
    call: &'static str,
    (argument, calls): (u32, u32),
    count: &dyn Fn(&str) -> u32,
) -> Result<Box<dyn Job>> {
    let linker = Linker::new(&made.rig.engine);
    let mut hands: Vec<(Sender<()>, Receiver<Result<u32>>)> = vec![];
    for _ in 0..count("threads") {
        let mut alive = Alive::new(&made.rig, &linker, echo)?;
        let (go, wait) = channel();
        let (done, found) = channel();
        thread::spawn(move || {
            while wait.recv().is_ok() {
                if done.send(turn(&mut alive, call, argument, calls)).is_err() {
                    return;
                }
            }
        });
        hands.push((go, found));
    }
    work(
        move || {
            for (go, _) in &hands {
                go.send(()).map_err(|_| format_err!("a thread has ended"))?;
            }
            hands
                .iter()
                .map(|(_, found)| found.recv()?)
                .collect::<Result<Vec<u32>>>()
        },
        |found| (json!(found), vec![]),
    )
}

fn turn(alive: &mut Alive, call: &str, argument: u32, calls: u32) -> Result<u32> {
    if call == "spin" {
        let func = alive.typed::<(u32,), (u32,)>("spin")?;
        return alive.call(&func, (argument,));
    }
    let func = alive.typed::<(u32, u32), (u32,)>("add")?;
    let mut last = 0;
    for _ in 0..calls {
        last = alive.call(&func, black_box((argument, 40)))?;
    }
    Ok(last)
}
