//! The part of a build that needs no compiler: from WIT to C and Go, and from a core module to a component.
//!
//! Itself a component, which `capwasm build` runs without any permission; so plugin authors need
//! their compiler and nothing else.

use std::collections::HashMap;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::wit_parser::{Resolve, SourceMap, UnresolvedPackageGroup, WorldId, WorldItem};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{embed_component_metadata, ComponentEncoder, StringEncoding};

wit_bindgen::generate!({ world: "componentizer", path: "wit" });

use exports::capwasm::componentizer::tool::{File, Guest};

struct Componentizer;
export!(Componentizer);

impl Guest for Componentizer {
    fn bind_c(
        packages: Vec<Vec<File>>,
        world: Option<String>,
        name: String,
        prefixes: Vec<(String, String)>,
    ) -> Result<Vec<File>, String> {
        let (resolve, world) = parse(packages, world.as_deref())?;
        let mut rename = prefixes;
        short_names(&resolve, world, &mut rename);
        let options = wit_bindgen_c::Opts {
            rename,
            rename_world: Some(name),
            ..Default::default()
        };
        generate(&mut *options.build(), resolve, world)
    }

    fn bind_go(packages: Vec<Vec<File>>, world: Option<String>) -> Result<Vec<File>, String> {
        let (resolve, world) = parse(packages, world.as_deref())?;
        let options = wit_bindgen_go::Opts {
            format: wit_bindgen_go::Format::False,
            generate_stubs: true,
            quiet: true,
            ..Default::default()
        };
        generate(&mut *options.build(), resolve, world)
    }

    fn embed(
        module: Vec<u8>,
        packages: Vec<Vec<File>>,
        world: Option<String>,
    ) -> Result<Vec<u8>, String> {
        let (resolve, world) = parse(packages, world.as_deref())?;
        let mut module = module;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .map_err(chain)?;
        Ok(module)
    }

    fn componentize(module: Vec<u8>) -> Result<Vec<u8>, String> {
        encode(&module, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
    }

    fn command(module: Vec<u8>) -> Result<Vec<u8>, String> {
        encode(&module, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
    }
}

fn encode(module: &[u8], adapter: &[u8]) -> Result<Vec<u8>, String> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|encoder| encoder.encode())
        .map_err(chain)
}

fn generate(
    generator: &mut dyn WorldGenerator,
    mut resolve: Resolve,
    world: WorldId,
) -> Result<Vec<File>, String> {
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files).map_err(chain)?;
    Ok(files
        .iter()
        .map(|(name, content)| File { name: name.into(), content: content.to_vec() })
        .collect())
}

/// The world of the first package, with all that it refers to.
fn parse(packages: Vec<Vec<File>>, world: Option<&str>) -> Result<(Resolve, WorldId), String> {
    let mut groups = packages.into_iter().map(group).collect::<Result<Vec<_>, _>>()?;
    if groups.is_empty() {
        return Err("there is no package".into());
    }
    let main = groups.remove(0);
    let mut resolve = Resolve::default();
    let package = resolve
        .push_groups(main, groups)
        .map_err(|error| error.render(&resolve.source_map))?;
    let world = resolve.select_world(&[package], world).map_err(chain)?;
    Ok((resolve, world))
}

fn group(files: Vec<File>) -> Result<UnresolvedPackageGroup, String> {
    let mut sources = SourceMap::new();
    for file in files {
        let text = String::from_utf8(file.content)
            .map_err(|_| format!("{}: this is not text in UTF-8", file.name))?;
        sources.push_str(&file.name, text);
    }
    sources.parse().map_err(|(sources, error)| error.render(&sources))
}

/// Has each exported interface go by its last word, unless two would be the same.
fn short_names(resolve: &Resolve, world: WorldId, rename: &mut Vec<(String, String)>) {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for (key, item) in &resolve.worlds[world].exports {
        if let WorldItem::Interface { id, .. } = item {
            if let Some(name) = &resolve.interfaces[*id].name {
                found.entry(name.replace('-', "_")).or_default().push(resolve.name_world_key(key));
            }
        }
    }
    for (short, keys) in found {
        if let [key] = &keys[..] {
            if !rename.iter().any(|(known, _)| known == key) {
                rename.push((key.clone(), short));
            }
        }
    }
}

/// An error with its causes.
fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
