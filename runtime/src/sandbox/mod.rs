//! One invocation of one function, in a heap of its own.
//!
//! ```text
//! Sandbox::begin ──► what the function says: calls, or its end
//! Sandbox::answer ─► what it says then
//! ```
//!
//! A sandbox is a state machine: nothing happens in it between two calls of it, so one thread serves many of them and a test
//! needs no clock. Promises: code reaches the host's natives and nothing else; what it uses up is measured, and past a limit
//! it ends with a code and cannot catch it; after its end it says nothing more.

mod bytes;
mod definition;
mod fault;
mod meter;
mod modules;
mod natives;
mod writer;

pub(crate) use definition::{DESCRIBE, declared, read};
pub use definition::{Definition, describe};

use crate::compile::Modules;
use crate::wire::{Answer, Call, Ended, Fault, Invocation, Limits};
use fault::fault_of;
use meter::Meter;
use natives::Shared;
use rquickjs::{CatchResultExt, Context, Ctx, Function, Persistent, Promise, Runtime, Value, promise::PromiseState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes allocated before garbage is looked for.
const COLLECT_AFTER: usize = 8 << 20;
/// Jobs between two looks at the meter.
const JOBS_BETWEEN: u32 = 64;
/// Modules of ours that are evaluated before a function begins: nearly every function imports them.
const READY: [&str; 1] = ["zod"];

/// What a function says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It asks, and goes on when it is answered.
    Call(Call),
    /// It ended.
    Ended(Ended),
}

/// A heap in which our own modules are ready, before it is known what runs in it. Making it takes far longer than beginning.
pub struct Warm {
    /// Before the runtime, since it is of it.
    invoke: Invoke,
    shared: Rc<Shared>,
    context: Context,
    runtime: Runtime,
}

impl Warm {
    /// An error is that there is no memory for a heap.
    pub fn new() -> Result<Warm, Fault> {
        let shared = Rc::new(Shared::new(Rc::new(Meter::new())));
        let runtime = Runtime::new().map_err(|_| out_of_memory())?;
        let context = Context::full(&runtime).map_err(|_| out_of_memory())?;
        runtime.set_gc_threshold(COLLECT_AFTER);
        load(&runtime, Arc::default());
        let ready = |ctx: Ctx<'_>| {
            natives::install(&ctx, &shared)
                .and_then(|()| READY.iter().try_for_each(|name| modules::evaluate(&ctx, name).map(drop)))
                .and_then(|()| Invoke::new(&ctx))
                .catch(&ctx)
                .map_err(|error| error.to_string())
        };
        match context.with(ready) {
            Ok(invoke) => Ok(Warm { invoke, shared, context, runtime }),
            Err(message) => {
                Err(Fault { message: format!("the sandbox could not be set up: {message}"), ..out_of_memory() })
            }
        }
    }

    /// Begins an invocation; gives what it says first.
    pub fn begin(self, modules: Arc<Modules>, invocation: Invocation) -> (Sandbox, Vec<Said>) {
        let start = self.invoke.start.clone();
        let mut sandbox = self.sandbox(modules, &invocation);
        sandbox.call(|ctx| start.restore(ctx), &[&invocation.file, &invocation.about]);
        let said = sandbox.go_on();
        (sandbox, said)
    }

    fn sandbox(self, modules: Arc<Modules>, invocation: &Invocation) -> Sandbox {
        self.shared.begin(invocation);
        limit(&self.runtime, &invocation.limits, &self.shared.meter);
        load(&self.runtime, modules.clone());
        let Warm { invoke, shared, context, runtime } = self;
        Sandbox { result: None, invoke, ended: false, shared, context, runtime, modules }
    }
}

/// What the module `invoke` offers to the host.
struct Invoke {
    /// Begins a function.
    start: Persistent<Function<'static>>,
    /// Says what was thrown.
    explain: Persistent<Function<'static>>,
}

impl Invoke {
    fn new(ctx: &Ctx<'_>) -> rquickjs::Result<Invoke> {
        let module = modules::evaluate(ctx, "syncline:invoke")?;
        let kept = |name| module.get(name).map(|function: Function<'_>| Persistent::save(ctx, function));
        Ok(Invoke { start: kept("start")?, explain: kept("explain")? })
    }
}

/// A running function.
pub struct Sandbox {
    /// Before the runtime, since it is of it.
    result: Option<Persistent<Promise<'static>>>,
    invoke: Invoke,
    ended: bool,
    shared: Rc<Shared>,
    context: Context,
    runtime: Runtime,
    modules: Arc<Modules>,
}

impl Sandbox {
    /// Begins an invocation. What it says first is the second part; an error is that there is no memory for a heap.
    pub fn begin(modules: Arc<Modules>, invocation: Invocation) -> Result<(Sandbox, Vec<Said>), Fault> {
        Ok(Warm::new()?.begin(modules, invocation))
    }

    /// Hands in what the host answers to a call. An answer to no call is ignored.
    pub fn answer(&mut self, call: u32, answer: Answer) -> Vec<Said> {
        if self.ended {
            return Vec::new();
        }
        self.shared.meter.step();
        let shared = self.shared.clone();
        let given =
            self.context.with(|ctx| shared.settle(&ctx, call, answer).catch(&ctx).map_err(|error| error.to_string()));
        // A value that does not fit into the heap: nothing of the function can go on.
        match given {
            Ok(()) => self.go_on(),
            Err(_) => self.end(Err(out_of_memory())),
        }
    }

    /// Ends it from outside; it is told nothing.
    pub fn stop(&mut self, code: &str, message: &str) -> Vec<Said> {
        match self.ended {
            true => Vec::new(),
            false => self.end(Err(Fault { code: code.into(), message: message.into(), ..Fault::default() })),
        }
    }

    /// Whether it ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Time on the processor so far.
    pub fn cpu(&self) -> Duration {
        self.shared.meter.total()
    }

    /// Calls a function of ours with texts, and keeps the promise it gives.
    fn call(
        &mut self,
        function: impl for<'js> FnOnce(&Ctx<'js>) -> rquickjs::Result<Function<'js>>,
        arguments: &[&str],
    ) {
        self.shared.meter.step();
        let called = self.context.with(|ctx| {
            let promise = function(&ctx).and_then(|function| {
                let mut given = rquickjs::function::Args::new(ctx.clone(), arguments.len());
                arguments.iter().try_for_each(|argument| given.push_arg(*argument))?;
                function.call_arg::<Promise<'_>>(given)
            });
            promise.map(|promise| Persistent::save(&ctx, promise)).catch(&ctx).map_err(|error| error.to_string())
        });
        self.result = called.ok();
    }

    /// Runs what can run, until the function waits for the host or ended.
    fn go_on(&mut self) -> Vec<Said> {
        let mut since = 0;
        loop {
            if since >= JOBS_BETWEEN {
                since = 0;
                self.shared.meter.look();
            }
            if let Some(fault) = self.shared.meter.over() {
                return self.end(Err(fault));
            }
            match self.runtime.execute_pending_job() {
                Ok(true) => since += 1,
                Ok(false) => break,
                // An error nobody may catch: the meter knows which one, or there was no memory for the next job.
                Err(_) => {
                    let fault = self.shared.meter.over().unwrap_or_else(out_of_memory);
                    return self.end(Err(fault));
                }
            }
        }
        self.shared.meter.look();
        if let Some(fault) = self.shared.meter.over() {
            return self.end(Err(fault));
        }
        match self.outcome() {
            Some(result) => {
                let result = result.map_err(|fault| fault.unwrap_or_else(|| self.stuck()));
                self.end(result)
            }
            None => self.shared.take_calls().into_iter().map(Said::Call).collect(),
        }
    }

    /// How the function ended, if it did; an error without a fault is that it never will.
    fn outcome(&self) -> Option<Result<Option<String>, Option<Fault>>> {
        let Some(result) = self.result.clone() else { return Some(Err(Some(out_of_memory()))) };
        self.context.with(|ctx| {
            let promise = match result.restore(&ctx) {
                Ok(promise) => promise,
                Err(_) => return Some(Err(Some(out_of_memory()))),
            };
            match promise.state() {
                PromiseState::Pending if self.shared.waits() => None,
                PromiseState::Pending => Some(Err(None)),
                PromiseState::Resolved => Some(match promise.result::<Option<String>>() {
                    Some(Ok(output)) => self.output(output).map_err(Some),
                    _ => Ok(None),
                }),
                PromiseState::Rejected => {
                    let thrown = match promise.result::<Value>() {
                        Some(Err(_)) => ctx.catch(),
                        _ => Value::new_undefined(ctx.clone()),
                    };
                    let explain = self.invoke.explain.clone().restore(&ctx);
                    Some(Err(Some(
                        explain.map_or_else(|_| out_of_memory(), |explain| fault_of(&self.modules, &explain, thrown)),
                    )))
                }
            }
        })
    }

    /// Nothing will settle what the function waits for; with a heap that is full, because there was no room for what would have.
    fn stuck(&self) -> Fault {
        let used = usize::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0);
        if used > self.shared.limits.get().memory / 10 * 9 {
            return out_of_memory();
        }
        let message = "the function waits for a promise that nothing will settle".to_owned();
        Fault { code: "stuck".into(), message, ..Fault::default() }
    }

    fn output(&self, output: Option<String>) -> Result<Option<String>, Fault> {
        let limit = self.shared.limits.get().output;
        match output {
            Some(output) if output.len() > limit => Err(Fault {
                code: "output_too_large".into(),
                message: format!("the output has {} bytes; at most {limit} are allowed", output.len()),
                ..Fault::default()
            }),
            output => Ok(output),
        }
    }

    fn end(&mut self, result: Result<Option<String>, Fault>) -> Vec<Said> {
        self.ended = true;
        let writes = self.shared.take_writes();
        vec![Said::Ended(Ended { writes, result, cpu: self.shared.meter.total() })]
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // What is kept of the heap must go before the heap.
        self.result = None;
        self.shared.forget();
    }
}

/// Which modules are found from here on, beside ours.
fn load(runtime: &Runtime, modules: Arc<Modules>) {
    runtime.set_loader(modules::Names::new(modules.clone()), modules::Sources::new(modules));
}

fn limit(runtime: &Runtime, limits: &Limits, meter: &Rc<Meter>) {
    runtime.set_memory_limit(limits.memory);
    runtime.set_max_stack_size(limits.stack);
    let meter = meter.clone();
    runtime.set_interrupt_handler(Some(Box::new(move || {
        meter.look();
        meter.over().is_some()
    })));
}

fn out_of_memory() -> Fault {
    Fault {
        code: "out_of_memory".into(),
        message: "the function needs more memory than it is allowed".into(),
        ..Fault::default()
    }
}

#[cfg(test)]
mod tests;
