//! Modules as the engine asks for them: ours by name, a function's by its path within the folder.

use crate::compile::{Modules, resolve};
use parking_lot::Mutex;
use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::{Declared, Evaluated, WriteOptions};
use rquickjs::{Ctx, Error, Module, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Ours that functions may import, and those that only ours import (with a colon in their name).
const OURS: [(&str, &str); 9] = [
    ("nango", include_str!("../../modules/nango.js")),
    ("zod", include_str!("../../modules/zod.js")),
    ("url", include_str!("../../modules/url.js")),
    ("buffer", include_str!("../../modules/buffer.js")),
    ("crypto", include_str!("../../modules/crypto.js")),
    ("syncline:globals", include_str!("../../modules/globals.js")),
    ("syncline:request", include_str!("../../modules/request.js")),
    ("syncline:invoke", include_str!("../../modules/invoke.js")),
    ("syncline:describe", include_str!("../../modules/describe.js")),
];

/// The source of a module of ours.
fn ours(name: &str) -> Option<&'static str> {
    OURS.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// Gives each import the name of the module it means.
pub(super) struct Names {
    modules: Arc<Modules>,
}

impl Names {
    pub(super) fn new(modules: Arc<Modules>) -> Names {
        Names { modules }
    }
}

impl Resolver for Names {
    fn resolve<'js>(
        &mut self,
        _: &Ctx<'js>,
        base: &str,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<String> {
        // Our own modules name modules as they are; what a function imports is looked up from its file.
        if ours(base).is_some() {
            return Ok(name.to_owned());
        }
        resolve(base, name, |path| self.modules.modules.contains_key(path))
            .map_err(|refusal| Error::new_resolving_message(base, name, refusal.to_string()))
    }
}

/// Gives the code behind a name.
pub(super) struct Sources {
    modules: Arc<Modules>,
}

impl Sources {
    pub(super) fn new(modules: Arc<Modules>) -> Sources {
        Sources { modules }
    }
}

impl Loader for Sources {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<Module<'js, Declared>> {
        if let Some(source) = ours(name) {
            return declare(ctx, name, source);
        }
        match self.modules.modules.get(name) {
            Some(module) => Module::declare(ctx.clone(), name, module.code.as_str()),
            None => Err(Error::new_loading(name)),
        }
    }
}

/// Bytecode of our own modules, made by this process of its own sources: parsing zod takes ten times as long as reading it.
static BYTECODE: Mutex<Option<HashMap<&'static str, Arc<[u8]>>>> = Mutex::new(None);

/// Declares a module of ours.
pub(super) fn declare<'js>(ctx: &Ctx<'js>, name: &str, source: &'static str) -> Result<Module<'js, Declared>> {
    let kept = BYTECODE.lock().as_ref().and_then(|kept| kept.get(name).cloned());
    if let Some(bytecode) = kept {
        // SAFETY: the bytes were written by `Module::write` of the same library in this process, and never left it.
        return unsafe { Module::load(ctx.clone(), &bytecode) };
    }
    let module = Module::declare(ctx.clone(), name, source)?;
    if let (Ok(bytecode), Some((name, _))) =
        (module.write(WriteOptions::default()), OURS.iter().find(|(known, _)| *known == name))
    {
        BYTECODE.lock().get_or_insert_default().insert(name, bytecode.into());
    }
    Ok(module)
}

/// Runs a module of ours.
pub(super) fn evaluate<'js>(ctx: &Ctx<'js>, name: &str) -> Result<Module<'js, Evaluated>> {
    let source = ours(name).ok_or_else(|| Error::new_loading(name))?;
    let (module, evaluated) = declare(ctx, name, source)?.eval()?;
    evaluated.finish::<()>()?;
    Ok(module)
}
