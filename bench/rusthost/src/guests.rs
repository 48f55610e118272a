//! The components of a benchmark, and instances of them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use wasmtime::component::{
    Component, ComponentNamedList, Func, Instance, Lift, Linker, Lower, TypedFunc, Val,
};
use wasmtime::{Result, Store, format_err};

use crate::host::{Host, Rig};

/// The components, and what was made of them: per rig, when first asked for.
pub struct Guests {
    place: PathBuf,
    guarded: OnceCell<Made>,
    plain: OnceCell<Made>,
    pooled: OnceCell<Made>,
}

pub struct Made {
    pub rig: Rig,
    echo: OnceCell<Component>,
    host: OnceCell<Component>,
}

impl Guests {
    pub fn new(place: &Path) -> Guests {
        Guests {
            place: place.to_path_buf(),
            guarded: OnceCell::new(),
            plain: OnceCell::new(),
            pooled: OnceCell::new(),
        }
    }

    pub fn made(&self, guarded: bool) -> Result<&Made> {
        once(if guarded { &self.guarded } else { &self.plain }, || {
            Ok(Made {
                rig: Rig::new(guarded, 0)?,
                echo: OnceCell::new(),
                host: OnceCell::new(),
            })
        })
    }

    pub fn pooled(&self) -> Result<&Made> {
        once(&self.pooled, || {
            Ok(Made {
                rig: Rig::new(true, 64)?,
                echo: OnceCell::new(),
                host: OnceCell::new(),
            })
        })
    }

    pub fn component(&self, rig: &Rig, name: &str) -> Result<Component> {
        Component::from_file(&rig.engine, self.place.join(format!("{name}.wasm")))
    }

    pub fn echo<'a>(&self, made: &'a Made) -> Result<&'a Component> {
        once(&made.echo, || self.component(&made.rig, "echo"))
    }

    pub fn host<'a>(&self, made: &'a Made) -> Result<&'a Component> {
        once(&made.host, || self.component(&made.rig, "host"))
    }
}

fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if cell.get().is_none() {
        let _ = cell.set(make()?);
    }
    Ok(cell.get().expect("just set"))
}

/// One instance in a store of its own.
pub struct Alive {
    rig: Rig,
    store: Store<Host>,
    instance: Instance,
}

impl Alive {
    pub fn new(rig: &Rig, linker: &Linker<Host>, component: &Component) -> Result<Alive> {
        let mut store = rig.store()?;
        let instance = linker.instantiate(&mut store, component)?;
        Ok(Alive {
            rig: rig.clone(),
            store,
            instance,
        })
    }

    pub fn typed<P, R>(&mut self, name: &str) -> Result<TypedFunc<P, R>>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.instance.get_typed_func(&mut self.store, name)
    }

    pub fn func(&mut self, name: &str) -> Result<Func> {
        let found = self.instance.get_func(&mut self.store, name);
        found.ok_or_else(|| format_err!("no function {name}"))
    }

    pub fn call<P, R>(&mut self, func: &TypedFunc<P, (R,)>, args: P) -> Result<R>
    where
        P: ComponentNamedList + Lower,
        R: 'static,
        (R,): ComponentNamedList + Lift,
    {
        self.rig.arm(&mut self.store)?;
        Ok(func.call(&mut self.store, args)?.0)
    }

    pub fn call_val(&mut self, func: &Func, args: &[Val]) -> Result<Val> {
        self.rig.arm(&mut self.store)?;
        let mut results = [Val::Bool(false)];
        func.call(&mut self.store, args, &mut results)?;
        let [result] = results;
        Ok(result)
    }
}
