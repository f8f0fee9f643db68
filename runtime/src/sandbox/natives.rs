//! What our modules can ask of the host: the only way out of a sandbox.

use super::meter::Meter;
use super::writer::Writer;
use super::{bytes, modules};
use crate::wire::{
    Answer, Ask, Call, Invocation, Limits, Line, Page, PageKind, Request, STEP_BYTES, STEP_MILLIS, STEP_RECORDS, Writes,
};
use hashbrown::HashTable;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rquickjs::{Array, ArrayBuffer, Ctx, Exception, Function, IntoJs, Object, Persistent, Promise, Result, Value};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};
use twox_hash::XxHash3_64;

/// Most calls that wait in a sandbox for those before them.
const CALLS: usize = 100_000;
/// Most random bytes at one time.
const CHANCE_BYTES: usize = 1 << 16;

/// What the natives of one sandbox share.
pub(super) struct Shared {
    pub(super) limits: Cell<Limits>,
    pub(super) meter: Rc<Meter>,
    models: RefCell<Vec<String>>,
    step: RefCell<Step>,
    /// Bytes that were written or asked, and that the host has not been told of.
    held: Cell<usize>,
    /// Calls the host has not been told of.
    calls: RefCell<VecDeque<Call>>,
    /// Calls without an answer.
    waiting: RefCell<HashMap<u32, Waiting>>,
    /// Of these, those the host has been told of.
    open: Cell<usize>,
    last: Cell<u32>,
    lines: Cell<u32>,
    /// The time where the host fixed it: it goes on only by sleeping.
    fixed: Cell<Option<i64>>,
    began: Cell<i64>,
    chance: RefCell<ChaCha8Rng>,
}

/// What was written since the last call.
#[derive(Default)]
struct Step {
    writes: Writes,
    bytes: usize,
    records: usize,
    since: Option<i64>,
}

struct Waiting {
    resolve: Persistent<Function<'static>>,
    reject: Persistent<Function<'static>>,
    form: Form,
    /// Of a sleep: how far the clock goes on where the host fixed it.
    millis: i64,
}

/// What is made of the body of an answer.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Text,
    Bytes,
}

impl Shared {
    /// Before it is known what is invoked: then time stands still, and chance is always the same.
    pub(super) fn new(meter: Rc<Meter>) -> Shared {
        Shared {
            limits: Cell::new(Limits::EXEC),
            meter,
            models: RefCell::default(),
            step: RefCell::default(),
            held: Cell::new(0),
            calls: RefCell::default(),
            waiting: RefCell::default(),
            open: Cell::new(0),
            last: Cell::new(0),
            lines: Cell::new(0),
            fixed: Cell::new(Some(0)),
            began: Cell::new(0),
            chance: RefCell::new(ChaCha8Rng::seed_from_u64(0)),
        }
    }

    /// What holds from here on.
    pub(super) fn begin(&self, invocation: &Invocation) {
        self.limits.set(invocation.limits);
        self.meter.begin(invocation.limits);
        *self.models.borrow_mut() = invocation.models.clone();
        self.fixed.set(invocation.now);
        self.began.set(self.now());
        *self.chance.borrow_mut() = ChaCha8Rng::seed_from_u64(invocation.seed);
    }

    /// Milliseconds since 1970, as the function sees them.
    fn now(&self) -> i64 {
        self.fixed.get().unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// Whether an answer of the host would go on with something.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// The calls the host may be told of now.
    pub(super) fn take_calls(&self) -> Vec<Call> {
        let room = self.limits.get().open.saturating_sub(self.open.get());
        let mut calls = self.calls.borrow_mut();
        let taken = calls.len().min(room);
        self.open.set(self.open.get() + taken);
        let taken: Vec<Call> = calls.drain(..taken).collect();
        let told: usize = taken.iter().map(weight).sum();
        self.held.set(self.held.get().saturating_sub(told));
        taken
    }

    /// What was written since the last call.
    pub(super) fn take_writes(&self) -> Writes {
        std::mem::take(&mut *self.step.borrow_mut()).writes
    }

    /// Gives up what it keeps of the heap.
    pub(super) fn forget(&self) {
        self.waiting.borrow_mut().clear();
    }

    /// Settles the promise of a call.
    pub(super) fn settle<'js>(&self, ctx: &Ctx<'js>, call: u32, answer: Answer) -> Result<()> {
        let Some(waiting) = self.waiting.borrow_mut().remove(&call) else { return Ok(()) };
        self.open.set(self.open.get().saturating_sub(1));
        self.fixed.set(self.fixed.get().map(|now| now.saturating_add(waiting.millis)));
        let (settle, value) = match answer {
            Answer::Done => (waiting.resolve, Value::new_undefined(ctx.clone())),
            Answer::Json(json) => (waiting.resolve, ctx.json_parse(json)?),
            Answer::Response { status, headers, body } => {
                (waiting.resolve, response(ctx, status, &headers, body, waiting.form)?)
            }
            Answer::Failed { code, message, payload } => (waiting.reject, failed(ctx, code, message, payload)?),
        };
        settle.restore(ctx)?.call((value,))
    }

    fn call<'js>(&self, ctx: &Ctx<'js>, ask: Ask, form: Form) -> Result<Promise<'js>> {
        let (promise, resolve, reject) = Promise::new(ctx)?;
        let id = self.last.get().wrapping_add(1);
        self.last.set(id);
        if self.calls.borrow().len() >= CALLS {
            return Err(Exception::throw_message(ctx, &format!("more than {CALLS} calls wait; await them")));
        }
        self.hold(ctx, weight_of(&ask))?;
        let millis = if let Ask::Sleep { millis } = &ask { i64::try_from(*millis).unwrap_or(i64::MAX) } else { 0 };
        let (resolve, reject) = (Persistent::save(ctx, resolve), Persistent::save(ctx, reject));
        self.waiting.borrow_mut().insert(id, Waiting { resolve, reject, form, millis });
        self.calls.borrow_mut().push_back(Call { id, writes: self.take_writes(), ask });
        Ok(promise)
    }

    /// What the host is not told of yet counts as memory of the function, though it lies outside its heap.
    fn hold(&self, ctx: &Ctx<'_>, bytes: usize) -> Result<()> {
        let held = self.held.get().saturating_add(bytes);
        if held > self.limits.get().memory {
            let message = "the function wrote more than it is allowed to hold in memory; await what it asks for";
            self.meter.exceed("out_of_memory", message.to_owned());
            return Err(Exception::throw_message(ctx, message));
        }
        self.held.set(held);
        Ok(())
    }

    fn request<'js>(&self, ctx: &Ctx<'js>, json: &str, body: &Value<'js>, form: &str) -> Result<Promise<'js>> {
        let invalid = |what: &str| Exception::throw_message(ctx, &format!("the request is not as expected: {what}"));
        let mut request: Request = serde_json::from_str(json).map_err(|error| invalid(&error.to_string()))?;
        request.body = match (body.as_string(), ArrayBuffer::from_value(body.clone())) {
            (Some(text), _) => Some(text.to_string()?.into_bytes()),
            (None, Some(buffer)) => Some(content(&buffer)),
            (None, None) => None,
        };
        self.meter.request();
        let form = match form {
            "bytes" => Form::Bytes,
            "text" => Form::Text,
            _ => Form::Json,
        };
        self.call(ctx, Ask::Request(request), form)
    }

    /// Adds records to the step; gives whether it is full. If one is refused, none of them is taken.
    fn write<'js>(&self, ctx: &Ctx<'js>, model: &str, kind: PageKind, records: &Array<'js>) -> Result<bool> {
        self.check_model(ctx, model)?;
        let mut page =
            Page { model: model.to_owned(), kind, bytes: Vec::new(), rows: Vec::with_capacity(records.len()) };
        let doubled = match fill(ctx, &mut page, records) {
            Ok(doubled) => doubled,
            Err(error) => {
                self.step.borrow_mut().writes.refused = true;
                return Err(error);
            }
        };
        if doubled > 0 {
            let text = format!(
                "{doubled} records of {model} came with an id that was in the same call already: the first of each counts"
            );
            self.log("warn", &text);
        }
        let now = self.now();
        self.hold(ctx, page.bytes.len())?;
        let mut step = self.step.borrow_mut();
        step.records += page.rows.len();
        step.bytes += page.bytes.len();
        let since = *step.since.get_or_insert(now);
        step.writes.pages.push(page);
        Ok(step.records >= STEP_RECORDS || step.bytes >= STEP_BYTES || now - since >= STEP_MILLIS)
    }

    /// Opens a window. Records of the model that were written before it must be in an earlier step: then it gives a call to
    /// wait for.
    fn open_window<'js>(&self, ctx: &Ctx<'js>, model: String) -> Result<Option<Promise<'js>>> {
        self.check_model(ctx, &model)?;
        let written = self.step.borrow().writes.pages.iter().any(|page| page.model == model);
        let before = if written { Some(self.call(ctx, Ask::Flush, Form::Json)?) } else { None };
        self.step.borrow_mut().writes.windows.push(model);
        Ok(before)
    }

    fn strategy(&self, ctx: &Ctx<'_>, model: String, strategy: String) -> Result<()> {
        self.check_model(ctx, &model)?;
        if !["override", "ignore_if_modified_after"].contains(&strategy.as_str()) {
            let message = format!("`{strategy}` is no merging strategy: expected override or ignore_if_modified_after");
            return Err(Exception::throw_message(ctx, &message));
        }
        self.step.borrow_mut().writes.strategies.push((model, strategy));
        Ok(())
    }

    fn check_model(&self, ctx: &Ctx<'_>, model: &str) -> Result<()> {
        let models = self.models.borrow();
        match models.iter().any(|known| known == model) {
            true => Ok(()),
            false => {
                self.step.borrow_mut().writes.refused = true;
                let known = models.join(", ");
                Err(Exception::throw_message(
                    ctx,
                    &format!("the function has no model `{model}`; its models are: {known}"),
                ))
            }
        }
    }

    fn log(&self, level: &str, text: &str) {
        self.lines.set(self.lines.get().saturating_add(1));
        let limits = self.limits.get();
        let text = match self.lines.get() {
            lines if lines < limits.lines => cut(text, limits.line).to_owned(),
            lines if lines == limits.lines => format!("more than {lines} lines: the rest is left out"),
            _ => return,
        };
        let level = if ["debug", "warn", "error"].contains(&level) { level } else { "info" };
        let at = self.now();
        self.held.set(self.held.get().saturating_add(text.len()));
        self.step.borrow_mut().writes.lines.push(Line { level: level.to_owned(), text, at });
    }
}

/// Bytes of a call that may be many.
fn weight(call: &Call) -> usize {
    let pages: usize = call.writes.pages.iter().map(|page| page.bytes.len()).sum();
    let lines: usize = call.writes.lines.iter().map(|line| line.text.len()).sum();
    pages + lines + weight_of(&call.ask)
}

fn weight_of(ask: &Ask) -> usize {
    match ask {
        Ask::Request(request) => request.body.as_ref().map_or(0, Vec::len),
        Ask::Member { arguments, .. } => arguments.len(),
        _ => 0,
    }
}

/// Packs records; gives how many were left out because their id was there already.
fn fill<'js>(ctx: &Ctx<'js>, page: &mut Page, records: &Array<'js>) -> Result<usize> {
    let writer = Writer::new(ctx);
    let mut places: HashTable<(usize, usize)> = HashTable::with_capacity(records.len());
    let mut doubled = 0;
    for record in records.iter::<Value>() {
        let from = page.bytes.len();
        let (id, json) = writer.record(&record?, &mut page.bytes)?;
        let place = (from, from + id as usize);
        let hash_of =
            |bytes: &[u8], (from, to): (usize, usize)| XxHash3_64::oneshot(bytes.get(from..to).unwrap_or_default());
        let hash = hash_of(&page.bytes, place);
        let same = |other: &(usize, usize)| page.bytes.get(other.0..other.1) == page.bytes.get(place.0..place.1);
        if places.find(hash, same).is_some() {
            page.bytes.truncate(from);
            doubled += 1;
            continue;
        }
        places.insert_unique(hash, place, |place| hash_of(&page.bytes, *place));
        page.rows.push((id, json));
    }
    Ok(doubled)
}

/// Puts the natives where our modules take them, and lets those hide them from functions.
pub(super) fn install<'js>(ctx: &Ctx<'js>, shared: &Rc<Shared>) -> Result<()> {
    let host = Object::new(ctx.clone())?;
    calls(ctx, &host, shared)?;
    writes(ctx, &host, shared)?;
    surroundings(ctx, &host, shared)?;
    encodings(ctx, &host)?;
    ctx.globals().set("__host", host)?;
    modules::evaluate(ctx, "syncline:globals").map(drop)
}

/// What is answered by the host: each gives a promise.
fn calls<'js>(ctx: &Ctx<'js>, host: &Object<'js>, shared: &Rc<Shared>) -> Result<()> {
    let of = shared.clone();
    let request =
        move |ctx: Ctx<'js>, json: String, body: Value<'js>, form: String| of.request(&ctx, &json, &body, &form);
    host.set("request", Function::new(ctx.clone(), request)?)?;
    let of = shared.clone();
    host.set("flush", Function::new(ctx.clone(), move |ctx: Ctx<'js>| of.call(&ctx, Ask::Flush, Form::Json))?)?;
    let of = shared.clone();
    let checkpoint = move |ctx: Ctx<'js>, json: Option<String>| of.call(&ctx, Ask::Checkpoint(json), Form::Json);
    host.set("checkpoint", Function::new(ctx.clone(), checkpoint)?)?;
    let of = shared.clone();
    let close = move |ctx: Ctx<'js>, model: String| {
        of.check_model(&ctx, &model)?;
        of.call(&ctx, Ask::CloseWindow { model }, Form::Json)
    };
    host.set("closeWindow", Function::new(ctx.clone(), close)?)?;
    let of = shared.clone();
    let records = move |ctx: Ctx<'js>, model: String, ids: String| {
        of.check_model(&ctx, &model)?;
        let ids = serde_json::from_str(&ids).map_err(|error| Exception::throw_message(&ctx, &error.to_string()))?;
        of.call(&ctx, Ask::Records { model, ids }, Form::Json)
    };
    host.set("records", Function::new(ctx.clone(), records)?)?;
    let of = shared.clone();
    let list = move |ctx: Ctx<'js>, model: String, after: Option<String>| {
        of.check_model(&ctx, &model)?;
        of.call(&ctx, Ask::List { model, after }, Form::Json)
    };
    host.set("list", Function::new(ctx.clone(), list)?)?;
    let of = shared.clone();
    let sleep = move |ctx: Ctx<'js>, millis: f64| of.call(&ctx, Ask::Sleep { millis: millis as u64 }, Form::Json);
    host.set("sleep", Function::new(ctx.clone(), sleep)?)?;
    let of = shared.clone();
    let member = move |ctx: Ctx<'js>, name: String, arguments: String| {
        of.call(&ctx, Ask::Member { name, arguments }, Form::Json)
    };
    host.set("member", Function::new(ctx.clone(), member)?)
}

/// What joins the step: each is done at once.
fn writes<'js>(ctx: &Ctx<'js>, host: &Object<'js>, shared: &Rc<Shared>) -> Result<()> {
    for (name, kind) in [("save", PageKind::Save), ("patch", PageKind::Patch), ("gone", PageKind::Gone)] {
        let of = shared.clone();
        let write = move |ctx: Ctx<'js>, model: String, records: Array<'js>| of.write(&ctx, &model, kind, &records);
        host.set(name, Function::new(ctx.clone(), write)?)?;
    }
    let of = shared.clone();
    host.set(
        "openWindow",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, model: String| of.open_window(&ctx, model))?,
    )?;
    let of = shared.clone();
    let strategy = move |ctx: Ctx<'js>, model: String, strategy: String| of.strategy(&ctx, model, strategy);
    host.set("strategy", Function::new(ctx.clone(), strategy)?)?;
    let of = shared.clone();
    host.set("log", Function::new(ctx.clone(), move |level: String, text: String| of.log(&level, &text))?)
}

/// Time and chance.
fn surroundings<'js>(ctx: &Ctx<'js>, host: &Object<'js>, shared: &Rc<Shared>) -> Result<()> {
    let of = shared.clone();
    host.set("now", Function::new(ctx.clone(), move || of.now() as f64)?)?;
    let of = shared.clone();
    host.set("began", Function::new(ctx.clone(), move || of.began.get() as f64)?)?;
    let of = shared.clone();
    host.set("random", Function::new(ctx.clone(), move || of.chance.borrow_mut().random::<f64>())?)?;
    let of = shared.clone();
    let chance = move |ctx: Ctx<'js>, size: usize| {
        let mut bytes = vec![0; size.min(CHANCE_BYTES)];
        of.chance.borrow_mut().fill_bytes(&mut bytes);
        ArrayBuffer::new_copy(ctx, &bytes)
    };
    host.set("chance", Function::new(ctx.clone(), chance)?)
}

/// Bytes and addresses.
fn encodings<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    let encode = |ctx: Ctx<'js>, text: String| ArrayBuffer::new_copy(ctx, text.as_bytes());
    host.set("encode", Function::new(ctx.clone(), encode)?)?;
    let bytes_of =
        |ctx: Ctx<'js>, text: String, encoding: String| ArrayBuffer::new_copy(ctx, bytes::bytes_of(&text, &encoding));
    host.set("bytesOf", Function::new(ctx.clone(), bytes_of)?)?;
    let text_of = |data: ArrayBuffer<'js>, encoding: String| bytes::text_of(&content(&data), &encoding);
    host.set("textOf", Function::new(ctx.clone(), text_of)?)?;
    let digest = |ctx: Ctx<'js>, algorithm: String, data: ArrayBuffer<'js>| {
        let digest = bytes::digest(&algorithm, &content(&data)).unwrap_or_default();
        ArrayBuffer::new_copy(ctx, digest)
    };
    host.set("digest", Function::new(ctx.clone(), digest)?)?;
    let hmac = |ctx: Ctx<'js>, algorithm: String, key: ArrayBuffer<'js>, data: ArrayBuffer<'js>| {
        let signature = bytes::hmac(&algorithm, &content(&key), &content(&data)).unwrap_or_default();
        ArrayBuffer::new_copy(ctx, signature)
    };
    host.set("hmac", Function::new(ctx.clone(), hmac)?)?;
    let url = |text: String, base: Option<String>| bytes::url(&text, base.as_deref());
    host.set("url", Function::new(ctx.clone(), url)?)?;
    let url_with = |href: String, part: String, value: String| bytes::url_with(&href, &part, &value);
    host.set("urlWith", Function::new(ctx.clone(), url_with)?)
}

/// `[status, headers as JSON, body]`.
fn response<'js>(
    ctx: &Ctx<'js>,
    status: u16,
    headers: &[(String, String)],
    body: Vec<u8>,
    form: Form,
) -> Result<Value<'js>> {
    let mut named = serde_json::Map::new();
    for (name, value) in headers {
        match named.get_mut(name) {
            Some(serde_json::Value::String(before)) => {
                before.push_str(", ");
                before.push_str(value);
            }
            _ => {
                named.insert(name.clone(), value.clone().into());
            }
        }
    }
    let answer = Array::new(ctx.clone())?;
    answer.set(0, status)?;
    answer.set(1, serde_json::Value::Object(named).to_string())?;
    answer.set(2, content_of(ctx, body, form)?)?;
    Ok(answer.into_value())
}

/// A body as the function asked for it: JSON where it is JSON, else text.
fn content_of<'js>(ctx: &Ctx<'js>, body: Vec<u8>, form: Form) -> Result<Value<'js>> {
    match form {
        Form::Bytes => Ok(ArrayBuffer::new_copy(ctx.clone(), &body)?.into_value()),
        Form::Text => String::from_utf8_lossy(&body).as_ref().into_js(ctx),
        Form::Json => match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => "".into_js(ctx),
            Some(b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                let text = String::from_utf8_lossy(&body).into_owned();
                ctx.json_parse(body).or_else(|_| {
                    ctx.catch();
                    text.into_js(ctx)
                })
            }
            Some(_) => String::from_utf8_lossy(&body).as_ref().into_js(ctx),
        },
    }
}

/// What a promise is rejected with: plain data, from which our modules make an error that knows its line.
fn failed<'js>(ctx: &Ctx<'js>, code: String, message: String, payload: Option<String>) -> Result<Value<'js>> {
    let failed = Object::new(ctx.clone())?;
    failed.set("code", code)?;
    failed.set("message", message)?;
    if let Some(payload) = payload {
        failed.set("payload", ctx.json_parse(payload)?)?;
    }
    Ok(failed.into_value())
}

/// A copy of the bytes of a buffer; none if it was given away.
fn content(buffer: &ArrayBuffer<'_>) -> Vec<u8> {
    // SAFETY: no code of a function runs before they are copied.
    unsafe { buffer.as_bytes() }.unwrap_or_default().to_vec()
}

/// The beginning of a text, of at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}
