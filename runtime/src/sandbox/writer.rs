//! From a value of the engine to the JSON of a record, in one walk and without text in between.
//!
//! The result is what `JSON.stringify` gives, but that `id` comes first, as text, and `_nango_metadata` is left out: then the
//! host stores it as it is. A value that is not made of plain objects, arrays and primitives goes through `JSON.stringify`
//! itself, since code may have a say in it (`toJSON`, a foreign prototype, a proxy). A getter that ran before that was known
//! runs again.
//!
//! This file is the only one that handles raw values of the engine. Each value it is given by the engine is owned by a
//! [`Owned`], each text by a [`Text`], each list of names by a [`Names`], which give it back.

use rquickjs::qjs;
use rquickjs::{Ctx, Exception, Result, Value};
use std::ffi::c_void;

/// Deepest nesting that is walked; below it `JSON.stringify` takes over.
const DEEPEST: u32 = 200;
/// Longest id, in characters.
pub(super) const ID_CHARS: usize = 255;
/// Classes of the engine: plain objects and arrays come first in its list.
const OBJECT: u32 = 1;
const ARRAY: u32 = 2;

/// A value that must be given back.
struct Owned(*mut qjs::JSContext, qjs::JSValue);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the value was given to us by this context, and nobody else gives it back.
        unsafe { qjs::JS_FreeValue(self.0, self.1) }
    }
}

/// A text in UTF-8 (with lone surrogates encoded like other characters) that must be given back.
struct Text(*mut qjs::JSContext, *const std::ffi::c_char, usize);

impl Text {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the engine gave a pointer to so many bytes, valid until it is given back.
        unsafe { std::slice::from_raw_parts(self.1.cast(), self.2) }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: as for `Owned`.
        unsafe { qjs::JS_FreeCString(self.0, self.1) }
    }
}

/// The names of an object's own properties.
struct Names(*mut qjs::JSContext, *mut qjs::JSPropertyEnum, u32);

impl Names {
    fn atoms(&self) -> impl Iterator<Item = qjs::JSAtom> + '_ {
        let list: &[qjs::JSPropertyEnum] = match self.2 {
            0 => &[],
            // SAFETY: the engine gave a pointer to so many entries, valid until they are given back.
            len => unsafe { std::slice::from_raw_parts(self.1, len as usize) },
        };
        list.iter().map(|entry| entry.atom)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: as for `Owned`; it frees the atoms too.
        unsafe { qjs::JS_FreePropertyEnum(self.0, self.1, self.2) }
    }
}

/// Why a walk ended early.
enum Stop {
    /// `JSON.stringify` has to decide.
    Odd,
    /// The engine threw.
    Thrown,
}

/// Writes records of one call.
pub(super) struct Writer<'js> {
    ctx: Ctx<'js>,
    raw: *mut qjs::JSContext,
    object: *mut c_void,
    array: *mut c_void,
    id: qjs::JSAtom,
    metadata: qjs::JSAtom,
    to_json: qjs::JSAtom,
    /// Somebody gave all objects a `toJSON`.
    all_odd: bool,
}

impl<'js> Writer<'js> {
    pub(super) fn new(ctx: &Ctx<'js>) -> Writer<'js> {
        let raw = ctx.as_raw().as_ptr();
        // SAFETY: the names have the lengths that are said.
        let atom = |name: &str| unsafe { qjs::JS_NewAtomLen(raw, name.as_ptr().cast(), name.len() as _) };
        // SAFETY: the context lives as long as `ctx`; the prototypes live as long as the context, so their addresses hold.
        let proto = |class| unsafe { Owned(raw, qjs::JS_GetClassProto(raw, class)) };
        let (object, array) = (proto(OBJECT), proto(ARRAY));
        let to_json = atom("toJSON");
        // SAFETY: reads a property of a value that is owned here.
        let has = |of: &Owned| {
            let found = Owned(raw, unsafe { qjs::JS_GetProperty(raw, of.1, to_json) });
            unsafe { qjs::JS_VALUE_GET_NORM_TAG(found.1) != qjs::JS_TAG_UNDEFINED }
        };
        let all_odd = has(&object) || has(&array);
        // SAFETY: both are objects.
        let (object, array) = unsafe { (qjs::JS_VALUE_GET_PTR(object.1), qjs::JS_VALUE_GET_PTR(array.1)) };
        Writer {
            ctx: ctx.clone(),
            raw,
            object,
            array,
            id: atom("id"),
            metadata: atom("_nango_metadata"),
            to_json,
            all_odd,
        }
    }

    /// Appends the id of a record, then its JSON; gives both lengths. What is no object with an id throws.
    pub(super) fn record(&self, value: &Value<'js>, out: &mut Vec<u8>) -> Result<(u32, u32)> {
        let from = out.len();
        let object = value.as_raw();
        if tag(object) != qjs::JS_TAG_OBJECT || value.is_array() || value.is_function() {
            return Err(self.refuse("a record must be an object"));
        }
        self.id_of(object, out)?;
        let middle = out.len();
        match self.members_of(object, (from, middle), out) {
            Ok(()) => {}
            Err(Stop::Thrown) => {
                out.truncate(from);
                return Err(rquickjs::Error::Exception);
            }
            Err(Stop::Odd) => {
                out.truncate(middle);
                self.by_stringify(value, (from, middle), out)?;
            }
        }
        Ok(((middle - from) as u32, (out.len() - middle) as u32))
    }

    fn refuse(&self, message: &str) -> rquickjs::Error {
        Exception::throw_message(&self.ctx, message)
    }

    /// The text of the member `id`: text as it is, a whole number in digits.
    fn id_of(&self, object: qjs::JSValue, out: &mut Vec<u8>) -> Result<()> {
        let id = self.get(object, self.id).map_err(|_| rquickjs::Error::Exception)?;
        let from = out.len();
        match tag(id.1) {
            qjs::JS_TAG_STRING | qjs::JS_TAG_STRING_ROPE | qjs::JS_TAG_INT => {
                let text = self.text(id.1).map_err(|_| rquickjs::Error::Exception)?;
                out.extend_from_slice(text.bytes());
            }
            qjs::JS_TAG_FLOAT64 => {
                // SAFETY: the tag says that it is one.
                let number = unsafe { qjs::JS_VALUE_GET_FLOAT64(id.1) };
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0 {
                    out.extend_from_slice((number as i64).to_string().as_bytes());
                }
            }
            _ => {}
        }
        let bytes = out.get(from..).unwrap_or_default();
        match std::str::from_utf8(bytes) {
            Ok("") => Err(self.refuse("Missing id field in record")),
            Ok(id) if id.chars().count() <= ID_CHARS => Ok(()),
            Ok(_) => Err(self.refuse(&format!("the id of a record has more than {ID_CHARS} characters"))),
            Err(_) => Err(self.refuse("the id of a record holds half of a character (a lone surrogate)")),
        }
    }

    /// The record as an object: its id, which stands in `out` already, first.
    fn members_of(&self, object: qjs::JSValue, id: (usize, usize), out: &mut Vec<u8>) -> std::result::Result<(), Stop> {
        self.plain(object, OBJECT)?;
        let names = self.names(object)?;
        out.extend_from_slice(b"{\"id\":");
        let mut text = [0; ID_CHARS * 4];
        let length = id.1 - id.0;
        text[..length].copy_from_slice(&out[id.0..id.1]);
        quote(&text[..length], out)?;
        for name in names.atoms() {
            if name != self.id && name != self.metadata {
                self.member(object, name, true, out, 1)?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// One member with its name, unless its value is one that JSON leaves out.
    fn member(
        &self,
        object: qjs::JSValue,
        name: qjs::JSAtom,
        comma: bool,
        out: &mut Vec<u8>,
        depth: u32,
    ) -> std::result::Result<bool, Stop> {
        let value = self.get(object, name)?;
        if matches!(tag(value.1), qjs::JS_TAG_UNDEFINED | qjs::JS_TAG_SYMBOL) {
            return Ok(false);
        }
        if comma {
            out.push(b',');
        }
        let mut length = 0;
        // SAFETY: the atom is one of the object's names.
        let text = unsafe { qjs::JS_AtomToCStringLen(self.raw, &mut length, name) };
        let text = self.own_text(text, length as usize)?;
        quote(text.bytes(), out)?;
        out.push(b':');
        self.value(value.1, out, depth)?;
        Ok(true)
    }

    fn value(&self, value: qjs::JSValue, out: &mut Vec<u8>, depth: u32) -> std::result::Result<(), Stop> {
        match tag(value) {
            qjs::JS_TAG_STRING | qjs::JS_TAG_STRING_ROPE => quote(self.text(value)?.bytes(), out)?,
            // SAFETY (here and below): the tag says what it is.
            qjs::JS_TAG_INT => digits(i64::from(unsafe { qjs::JS_VALUE_GET_INT(value) }), out),
            qjs::JS_TAG_BOOL => {
                out.extend_from_slice(if unsafe { qjs::JS_VALUE_GET_BOOL(value) } { b"true" } else { b"false" })
            }
            qjs::JS_TAG_NULL => out.extend_from_slice(b"null"),
            qjs::JS_TAG_FLOAT64 => match unsafe { qjs::JS_VALUE_GET_FLOAT64(value) } {
                number if !number.is_finite() => out.extend_from_slice(b"null"),
                number if number.fract() == 0.0 && number.abs() < 9e15 => digits(number as i64, out),
                // The engine's own formatting, which JavaScript defines.
                _ => out.extend_from_slice(self.text(value)?.bytes()),
            },
            qjs::JS_TAG_OBJECT if depth < DEEPEST => self.object(value, out, depth)?,
            _ => return Err(Stop::Odd),
        }
        Ok(())
    }

    fn object(&self, value: qjs::JSValue, out: &mut Vec<u8>, depth: u32) -> std::result::Result<(), Stop> {
        // SAFETY: asks an object for its class.
        if unsafe { qjs::JS_GetClassID(value) } == ARRAY {
            return self.elements(value, out, depth);
        }
        self.plain(value, OBJECT)?;
        let names = self.names(value)?;
        out.push(b'{');
        let mut any = false;
        for name in names.atoms() {
            any |= self.member(value, name, any, out, depth + 1)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn elements(&self, value: qjs::JSValue, out: &mut Vec<u8>, depth: u32) -> std::result::Result<(), Stop> {
        self.plain(value, ARRAY)?;
        let mut length = 0;
        // SAFETY: asks an array for its length.
        if unsafe { qjs::JS_GetLength(self.raw, value, &mut length) } < 0 {
            return Err(Stop::Thrown);
        }
        out.push(b'[');
        for index in 0..length {
            if index > 0 {
                out.push(b',');
            }
            // SAFETY: reads an element, which is owned from here on.
            let element = self.own(unsafe { qjs::JS_GetPropertyInt64(self.raw, value, index) })?;
            match tag(element.1) {
                qjs::JS_TAG_UNDEFINED | qjs::JS_TAG_SYMBOL => out.extend_from_slice(b"null"),
                _ => self.value(element.1, out, depth + 1)?,
            }
        }
        out.push(b']');
        Ok(())
    }

    /// Refuses to walk what is not of this class with the prototype it was born with, or has a `toJSON` of its own.
    fn plain(&self, value: qjs::JSValue, class: u32) -> std::result::Result<(), Stop> {
        // SAFETY: asks an object for its class.
        if self.all_odd || unsafe { qjs::JS_GetClassID(value) } != class {
            return Err(Stop::Odd);
        }
        // SAFETY: not a proxy, so no code runs; the prototype is owned from here on.
        let proto = self.own(unsafe { qjs::JS_GetPrototype(self.raw, value) })?;
        let expected = if class == ARRAY { self.array } else { self.object };
        // SAFETY: the tag says that it has a pointer.
        if tag(proto.1) != qjs::JS_TAG_OBJECT || unsafe { qjs::JS_VALUE_GET_PTR(proto.1) } != expected {
            return Err(Stop::Odd);
        }
        // SAFETY: not a proxy, so no code runs; without a place for it, nothing is given but whether it is there.
        match unsafe { qjs::JS_GetOwnProperty(self.raw, std::ptr::null_mut(), value, self.to_json) } {
            0 => Ok(()),
            found if found < 0 => Err(Stop::Thrown),
            _ => Err(Stop::Odd),
        }
    }

    fn names(&self, value: qjs::JSValue) -> std::result::Result<Names, Stop> {
        let (mut list, mut length) = (std::ptr::null_mut(), 0);
        let flags = (qjs::JS_GPN_STRING_MASK | qjs::JS_GPN_ENUM_ONLY) as i32;
        // SAFETY: fills in a list that is owned from here on.
        match unsafe { qjs::JS_GetOwnPropertyNames(self.raw, &mut list, &mut length, value, flags) } {
            code if code < 0 => Err(Stop::Thrown),
            _ => Ok(Names(self.raw, list, length)),
        }
    }

    fn get(&self, object: qjs::JSValue, name: qjs::JSAtom) -> std::result::Result<Owned, Stop> {
        // SAFETY: reads a property; a getter may run, and what it gives is owned from here on.
        self.own(unsafe { qjs::JS_GetProperty(self.raw, object, name) })
    }

    fn own(&self, value: qjs::JSValue) -> std::result::Result<Owned, Stop> {
        match tag(value) {
            qjs::JS_TAG_EXCEPTION => Err(Stop::Thrown),
            _ => Ok(Owned(self.raw, value)),
        }
    }

    fn text(&self, value: qjs::JSValue) -> std::result::Result<Text, Stop> {
        let mut length = 0;
        // SAFETY: the text is owned from here on.
        let text = unsafe { qjs::JS_ToCStringLen2(self.raw, &mut length, value, false) };
        self.own_text(text, length as usize)
    }

    fn own_text(&self, text: *const std::ffi::c_char, length: usize) -> std::result::Result<Text, Stop> {
        match text.is_null() {
            true => Err(Stop::Thrown),
            false => Ok(Text(self.raw, text, length)),
        }
    }

    /// What `JSON.stringify` makes of a record, with the id first. Its text is cut up and not read again: a value would not
    /// survive that, as a member named `__proto__` or the order of names that are numbers.
    fn by_stringify(&self, value: &Value<'js>, id: (usize, usize), out: &mut Vec<u8>) -> Result<()> {
        let told = self.ctx.json_stringify(value.clone())?.map(|told| told.to_string()).transpose()?;
        let Some(members) = told.as_deref().and_then(|told| told.strip_prefix('{')?.strip_suffix('}')) else {
            return Err(self.refuse("a record must be an object"));
        };
        let id = out.get(id.0..id.1).unwrap_or_default().to_vec();
        out.extend_from_slice(b"{\"id\":");
        // An id has no half characters.
        let _ = quote(&id, out);
        for member in split(members) {
            if !member.starts_with("\"id\":") && !member.starts_with("\"_nango_metadata\":") {
                out.push(b',');
                out.extend_from_slice(member.as_bytes());
            }
        }
        out.push(b'}');
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        for atom in [self.id, self.metadata, self.to_json] {
            // SAFETY: each was made by `new`, and is given back once.
            unsafe { qjs::JS_FreeAtom(self.raw, atom) }
        }
    }
}

/// The members of an object in JSON, without its braces.
fn split(members: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut is_text, mut is_escaped) = (0, false, false);
    let ends = move |at: char| {
        match (at, is_text) {
            _ if is_escaped => is_escaped = false,
            ('\\', true) => is_escaped = true,
            ('"', _) => is_text = !is_text,
            ('{' | '[', false) => depth += 1,
            ('}' | ']', false) => depth -= 1,
            (',', false) => return depth == 0,
            _ => {}
        }
        false
    };
    members.split(ends).filter(|member| !member.is_empty())
}

fn tag(value: qjs::JSValue) -> i32 {
    // SAFETY: reads the tag of a value, whatever it is.
    unsafe { qjs::JS_VALUE_GET_NORM_TAG(value) }
}

fn digits(number: i64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(number).as_bytes());
}

/// A text in quotes. Half characters are left to `JSON.stringify`, which escapes them.
fn quote(text: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), Stop> {
    out.push(b'"');
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0xED {
            continue;
        }
        if byte == 0xED {
            match text.get(at + 1) {
                Some(next) if *next >= 0xA0 => return Err(Stop::Odd),
                _ => continue,
            }
        }
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0A => out.extend_from_slice(b"\\n"),
            0x0C => out.extend_from_slice(b"\\f"),
            0x0D => out.extend_from_slice(b"\\r"),
            other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&text[from..]);
    out.push(b'"');
    Ok(())
}
