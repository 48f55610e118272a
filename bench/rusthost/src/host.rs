//! Engines, stores and what guests may import.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable, ResourceType, Val};
use wasmtime::{
    Config, Engine, PoolingAllocationConfig, Result, Store, StoreLimits, StoreLimitsBuilder, bail,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::values::KvError;

const FUEL: u64 = 2_000_000_000;
const TICK: Duration = Duration::from_millis(10);
const DEADLINE: u64 = 1_000; // ticks
const MEMORY: usize = 128 << 20;
pub const SETTING: &str = "guten Tag, Welt";

/// What one store has.
pub struct Host {
    limits: StoreLimits,
    wasi: Option<Wasi>,
    value: Arc<Mutex<Vec<u8>>>,
    started: std::time::Instant,
}

struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.as_mut().expect("a store with WASI");
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}

/// An engine, and how its stores are guarded.
#[derive(Clone)]
pub struct Rig {
    pub engine: Engine,
    guarded: bool,
    wasi: bool,
    value: Arc<Mutex<Vec<u8>>>,
}

impl Rig {
    /// `guarded`: with fuel, deadline and limits, as capwasm has them.  `pooled`: slots for that
    /// many instances at a time, from a pool; 0: each gets memory of its own.
    pub fn new(guarded: bool, pooled: u32) -> Result<Rig> {
        let mut config = Config::new();
        if guarded {
            config.consume_fuel(true).epoch_interruption(true);
        }
        if pooled > 0 {
            let slot = 16 << 20;
            let mut pool = PoolingAllocationConfig::default();
            pool.total_component_instances(pooled)
                .total_core_instances(pooled * 4)
                .total_memories(pooled)
                .total_tables(pooled * 4)
                .max_memory_size(slot);
            config
                .allocation_strategy(pool)
                .memory_reservation(slot as u64);
        }
        let engine = Engine::new(&config)?;
        if guarded {
            let ticked = engine.weak();
            thread::spawn(move || {
                while let Some(engine) = ticked.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    thread::sleep(TICK);
                }
            });
        }
        Ok(Rig {
            engine,
            guarded,
            wasi: false,
            value: Arc::default(),
        })
    }

    /// The same with WASI in every store.
    pub fn with_wasi(self) -> Rig {
        Rig { wasi: true, ..self }
    }

    pub fn store(&self) -> Result<Store<Host>> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY)
            .table_elements(100_000)
            .instances(64)
            .tables(32)
            .memories(1)
            .build();
        let wasi = self.wasi.then(|| Wasi {
            ctx: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        });
        let host = Host {
            limits,
            wasi,
            value: self.value.clone(),
            started: std::time::Instant::now(),
        };
        let mut store = Store::new(&self.engine, host);
        // By default 128 MiB of `Val`s, which a list of 10 MB is not.
        store.set_hostcall_fuel(usize::MAX);
        if self.guarded {
            store.limiter(|host| &mut host.limits);
        }
        self.arm(&mut store)?;
        Ok(store)
    }

    /// Before each call: its fuel and its time.
    pub fn arm(&self, store: &mut Store<Host>) -> Result<()> {
        if self.guarded {
            store.set_fuel(FUEL)?;
            store.set_epoch_deadline(DEADLINE);
        }
        Ok(())
    }

    /// WASI, if the stores have it; every other import is there and fails when it is called.
    pub fn linker(&self, component: &Component) -> Result<Linker<Host>> {
        let mut linker = Linker::new(&self.engine);
        if self.wasi {
            wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        }
        for (interface, held) in component.component_type().imports(&self.engine) {
            let ComponentItem::ComponentInstance(held) = held.ty else {
                continue;
            };
            if interface.starts_with("wasi:") {
                continue;
            }
            let mut place = linker.instance(interface)?;
            for (name, item) in held.exports(&self.engine) {
                match item.ty {
                    ComponentItem::ComponentFunc(_) => {
                        place.func_new(name, |_, _, _, _| bail!("not served"))?;
                    }
                    ComponentItem::Resource(_) => {
                        place.resource(name, ResourceType::host::<Host>(), |_, _| Ok(()))?;
                    }
                    _ => {}
                }
            }
        }
        Ok(linker)
    }

    /// For host.wat: functions with types known to the compiler.
    pub fn typed_linker(&self) -> Result<Linker<Host>> {
        let mut linker = Linker::<Host>::new(&self.engine);
        linker
            .instance("capwasm:clock/clock@0.1.0")?
            .func_wrap("monotonic", |store, ()| {
                Ok((store.data().started.elapsed().as_nanos() as u64,))
            })?;
        linker
            .instance("capwasm:config/config@0.1.0")?
            .func_wrap("get", |_, (key,): (String,)| Ok((setting(&key),)))?;
        let mut kv = linker.instance("capwasm:kv/store@0.1.0")?;
        kv.func_wrap("get", |store, (key,): (String,)| {
            let found = (key == "value").then(|| store.data().value.lock().unwrap().clone());
            Ok((Ok::<_, KvError>(found),))
        })?;
        kv.func_wrap(
            "set",
            |store, (_, value, _): (String, Vec<u8>, Option<u64>)| {
                *store.data().value.lock().unwrap() = value;
                Ok((Ok::<(), KvError>(()),))
            },
        )?;
        Ok(linker)
    }

    /// The same with values whose types are found out at run time.
    pub fn val_linker(&self) -> Result<Linker<Host>> {
        let mut linker = Linker::<Host>::new(&self.engine);
        linker.instance("capwasm:clock/clock@0.1.0")?.func_new(
            "monotonic",
            |store, _, _, results| {
                results[0] = Val::U64(store.data().started.elapsed().as_nanos() as u64);
                Ok(())
            },
        )?;
        linker.instance("capwasm:config/config@0.1.0")?.func_new(
            "get",
            |_, _, args, results| {
                results[0] = Val::Option(setting(text(&args[0])).map(|s| Box::new(Val::String(s))));
                Ok(())
            },
        )?;
        let mut kv = linker.instance("capwasm:kv/store@0.1.0")?;
        kv.func_new("get", |store, _, args, results| {
            let found = (text(&args[0]) == "value").then(|| {
                let value = store.data().value.lock().unwrap();
                Box::new(Val::List(value.iter().map(|b| Val::U8(*b)).collect()))
            });
            results[0] = Val::Result(Ok(Some(Box::new(Val::Option(found)))));
            Ok(())
        })?;
        kv.func_new("set", |store, _, args, results| {
            *store.data().value.lock().unwrap() = crate::values::bytes_of(&args[1]);
            results[0] = Val::Result(Ok(None));
            Ok(())
        })?;
        Ok(linker)
    }
}

fn setting(key: &str) -> Option<String> {
    (key == "greeting").then(|| SETTING.to_string())
}

fn text(value: &Val) -> &str {
    match value {
        Val::String(text) => text,
        _ => "",
    }
}
