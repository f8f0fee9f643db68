//! jq expressions, compiled and bounded.
//!
//! Promises: no expression that compiles can run for ever, read anything but its input and variables, or panic; numbers
//! keep their digits unless calculated with; a plain path never enters jq.

use super::check::Checker;
use super::pointer::{self, Pointer};
use super::{CompileError, EvalError, Vars, convert, functions};
use jaq_core::data::JustLut;
use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{Arena, File, Lexer, Loader, Parser};
use jaq_core::{Compiler, Ctx, Filter};
use jaq_json::Val;
use serde_json::Value;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longest text of an expression.
pub const MAX_TEXT: usize = 4 << 10;
/// Most outputs of one evaluation.
pub const MAX_OUTPUTS: usize = 10_000;
/// Deepest brackets.
const MAX_BRACKETS: usize = 64;
/// Stack of the thread that compiles: the parser recurses.
const COMPILE_STACK: usize = 32 << 20;
/// Longest message of an evaluation error: jq puts whole values into its messages.
const MAX_MESSAGE: usize = 300;
/// Variables, in the order [`globals`] gives them.
const NAMES: [&str; 11] =
    ["$h", "$q", "$type", "$connection", "$partition", "$input", "$steps", "$body", "$method", "$url", "$secret"];

/// A compiled expression. Cheap to clone; evaluates on any thread.
#[derive(Clone)]
pub struct Expr(Arc<Compiled>);

struct Compiled {
    text: String,
    path: Option<Vec<String>>,
    /// Variables it reads, each with the field read of it where that is written out.
    variables: Vec<(&'static str, Option<String>)>,
    drops: bool,
    code: Code,
}

enum Code {
    Path(Vec<Pointer>),
    Filter(Box<Jq>),
}

/// A compiled filter, and which of [`NAMES`] it reads: the others are not converted for it.
struct Jq {
    filter: Filter<JustLut<Val>>,
    reads: [bool; NAMES.len()],
}

/// What compiling tells of an expression.
struct Checked {
    jq: Jq,
    variables: Vec<(&'static str, Option<String>)>,
    drops: bool,
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({})", self.0.text)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.0.text == other.0.text
    }
}

impl Expr {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Expr, CompileError> {
        Expr::build(text, false)
    }

    /// Compiles `text`, which may also use `$body $method $url $secret`.
    pub fn compile_verify(text: &str) -> Result<Expr, CompileError> {
        Expr::build(text, true)
    }

    fn build(text: &str, verify: bool) -> Result<Expr, CompileError> {
        if text.len() > MAX_TEXT {
            let message = format!("the expression has {} bytes; {MAX_TEXT} are allowed", text.len());
            return Err(CompileError { code: "bad_expression", message, at: 0 });
        }
        let text = text.to_owned();
        let compiled = match pointer::read(text.trim()) {
            Some(paths) => {
                let path = if let [only] = paths.as_slice() { only.keys() } else { None };
                let variables = paths.iter().filter_map(Pointer::variable);
                let variables = variables.map(|(name, field)| (name, field.map(str::to_owned))).collect();
                Compiled { text, path, variables, drops: false, code: Code::Path(paths) }
            }
            None => {
                let Checked { jq, variables, drops } = filter(&text, verify)?;
                Compiled { text, path: None, variables, drops, code: Code::Filter(Box::new(jq)) }
            }
        };
        Ok(Expr(Arc::new(compiled)))
    }

    /// The first output; null if there is none.
    pub fn first(&self, input: &Value, vars: &Vars) -> Result<Value, EvalError> {
        match &self.0.code {
            Code::Path(paths) => pointer::walk(paths, input, vars).cloned(),
            Code::Filter(filter) => Ok(run(filter, input, vars, 1)?.pop().unwrap_or(Value::Null)),
        }
    }

    /// All outputs (bounded).
    pub fn all(&self, input: &Value, vars: &Vars) -> Result<Vec<Value>, EvalError> {
        match &self.0.code {
            Code::Path(paths) => pointer::walk(paths, input, vars).map(|v| vec![v.clone()]),
            Code::Filter(filter) => run(filter, input, vars, MAX_OUTPUTS + 1),
        }
    }

    /// Whether the first output is neither null nor false.
    pub fn truthy(&self, input: &Value, vars: &Vars) -> Result<bool, EvalError> {
        let truth = |v: &Value| !matches!(v, Value::Null | Value::Bool(false));
        match &self.0.code {
            Code::Path(paths) => pointer::walk(paths, input, vars).map(truth),
            Code::Filter(_) => self.first(input, vars).map(|v| truth(&v)),
        }
    }

    /// The object path this expression is, if it is nothing but one (`.a.b` → `["a", "b"]`).
    pub fn path(&self) -> Option<&[String]> {
        self.0.path.as_deref()
    }

    /// The variables it reads (`$h`), each with the field read of it where that is written out (`$connection.id` → `id`).
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        self.0.variables.iter().map(|(name, field)| (*name, field.as_deref()))
    }

    /// Whether it reads `$h`.
    pub fn reads_headers(&self) -> bool {
        self.variables().any(|(name, _)| name == NAMES[0])
    }

    /// Whether it may give no element of a list that has some: it selects, tries, compares or cuts.
    pub fn drops(&self) -> bool {
        self.0.drops
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

/// Runs a filter for at most `most` outputs; more than [`MAX_OUTPUTS`] are an error.
fn run(jq: &Jq, input: &Value, vars: &Vars, most: usize) -> Result<Vec<Value>, EvalError> {
    let filter = &jq.filter;
    let input = convert::to_jq(input, 0)?;
    let globals = globals(vars, jq.reads)?;
    functions::start();
    // jaq may still panic where it believes something impossible; the value in hand is then lost, the process is not.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let context = Ctx::<JustLut<Val>>::new(&filter.lut, jaq_core::Vars::new(globals));
        let mut budget = convert::MAX_OUTPUT_BYTES;
        let mut outputs = Vec::new();
        for output in filter.id.run((context, input)).take(most) {
            let value = output.map_err(|exception| match exception.get_err() {
                Ok(error) => EvalError(shorten(error.to_string())),
                Err(_) => EvalError(functions::why_stopped().to_owned()),
            })?;
            if outputs.len() == MAX_OUTPUTS {
                return Err(EvalError(format!("the expression gives more than {MAX_OUTPUTS} results")));
            }
            outputs.push(convert::to_json(&value, 0, &mut budget)?);
        }
        Ok(outputs)
    }));
    match outcome {
        Ok(result) => result,
        Err(_) => Err(EvalError("the expression cannot be evaluated on this value".to_owned())),
    }
}

/// The values of [`NAMES`]; those nobody reads stay null.
fn globals(vars: &Vars, reads: [bool; NAMES.len()]) -> Result<[Val; NAMES.len()], EvalError> {
    let verify = vars.verify.as_deref();
    let text = |text: &String| Val::utf8_str(text.clone());
    let value = |at: usize| match at {
        0 => convert::to_jq(&vars.h, 0),
        1 => convert::to_jq(&vars.q, 0),
        2 => convert::to_jq(&vars.kind, 0),
        3 => convert::to_jq(&vars.connection, 0),
        4 => convert::to_jq(&vars.partition, 0),
        5 => convert::to_jq(&vars.input, 0),
        6 => convert::to_jq(&vars.steps, 0),
        7 => Ok(verify.map_or(Val::Null, |v| text(&v.body))),
        8 => Ok(verify.map_or(Val::Null, |v| text(&v.method))),
        9 => Ok(verify.map_or(Val::Null, |v| text(&v.url))),
        _ => Ok(verify.map_or(Val::Null, |v| text(&v.secret))),
    };
    let mut globals = std::array::from_fn(|_| Val::Null);
    for (at, global) in globals.iter_mut().enumerate().filter(|(at, _)| reads.get(*at) == Some(&true)) {
        *global = value(at)?;
    }
    Ok(globals)
}

fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let cut = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        message.push('…');
    }
    message
}

/// Compiles on a thread with a stack of its own: lexer, parser and compiler recurse with the depth of the text.
fn filter(text: &str, verify: bool) -> Result<Checked, CompileError> {
    brackets(text)?;
    let failed = || CompileError { code: "bad_expression", message: "the expression cannot be read".to_owned(), at: 0 };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(COMPILE_STACK);
        match thread.spawn_scoped(scope, || compile(text, verify)) {
            Ok(handle) => handle.join().unwrap_or_else(|_| Err(failed())),
            Err(_) => Err(failed()),
        }
    })
}

/// Refuses text nested deeper than any sane expression, before anything recurses.
fn brackets(text: &str) -> Result<(), CompileError> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            let message = format!("nested deeper than {MAX_BRACKETS} brackets");
            return Err(CompileError { code: "bad_expression", message, at });
        }
    }
    Ok(())
}

fn compile(text: &str, verify: bool) -> Result<Checked, CompileError> {
    let mut checker = Checker::new(text, verify);
    let term = checker.term(parse(text)?, 0)?;
    let Checker { used, bound, drops, .. } = checker;
    let reads = NAMES.map(|ours| used.iter().any(|(name, _)| *name == ours));
    // A name the expression binds itself may be its own wherever it stands.
    let free = used.into_iter().filter(|(name, _)| !bound.contains(name));
    let ours = |name: &str| NAMES.into_iter().find(|known| *known == name);
    let variables = free.filter_map(|(name, field)| Some((ours(name)?, field.map(str::to_owned)))).collect();
    let below = jaq_core::load::parse(functions::DEFS_BELOW, |p| p.defs()).unwrap_or_default();
    let above = jaq_core::load::parse(functions::DEFS, |p| p.defs()).unwrap_or_default();
    // The checked term becomes a definition, so that what is compiled is exactly what was checked.
    let main = Def { name: "main__", args: Vec::new(), body: term };
    let library = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let mut defs: Vec<Def<&str>> = below.into_iter().chain(library).chain(above).collect::<Vec<_>>();
    defs.push(main);
    let funs = functions::library().chain(functions::all());
    let arena = Arena::default();
    let undefined = |message: String, at: &str| CompileError {
        code: "bad_expression",
        message,
        at: (at.as_ptr() as usize).checked_sub(text.as_ptr() as usize).filter(|o| *o <= text.len()).unwrap_or(0),
    };
    let modules = Loader::new(defs)
        .load(&arena, File { code: "main__", path: () })
        .map_err(|_| undefined("the expression cannot be loaded".to_owned(), text))?;
    let compiled = Compiler::default().with_funs(funs).with_global_vars(NAMES).compile(modules).map_err(|errors| {
        let first = errors.into_iter().flat_map(|(_, list)| list).next();
        match first {
            Some((name, what)) => undefined(format!("there is no {} `{name}`", what.as_str()), name),
            None => undefined("the expression cannot be compiled".to_owned(), text),
        }
    });
    Ok(Checked { jq: Jq { filter: compiled?, reads }, variables, drops })
}

fn parse(text: &str) -> Result<Term<&str>, CompileError> {
    let error = |message: String, at: &str| {
        let at = (at.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
        CompileError { code: "bad_expression", message, at }
    };
    let end = text.get(text.len()..).unwrap_or_default();
    let tokens = Lexer::new(text).lex().map_err(|errors| match errors.first() {
        Some((expected, at)) => error(format!("{} expected", expected.as_str()), at),
        None => error("the expression cannot be read".to_owned(), text),
    })?;
    Parser::new(&tokens).parse(|p| p.term()).map_err(|errors| match errors.first() {
        Some((expected, found)) => {
            let at = found.map_or(end, |token| token.0);
            let shown = if at.is_empty() { "the end".to_owned() } else { format!("`{}`", shorten(at.to_owned())) };
            error(format!("{} expected before {shown}", expected.as_str()), at)
        }
        None => error("the expression cannot be read".to_owned(), text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn first(text: &str, input: &Value) -> Result<Value, String> {
        let vars = Vars { h: json!({"x-y": "z"}), partition: json!({"repo": "r"}), ..Vars::default() };
        Expr::compile(text).map_err(|e| e.to_string())?.first(input, &vars).map_err(|e| e.0)
    }

    fn refusal(text: &str) -> &'static str {
        match Expr::compile(text) {
            Ok(_) => "accepted",
            Err(e) => e.code,
        }
    }

    #[test]
    fn plain_paths_mean_what_jq_means() {
        let input = json!({"a": {"b": [1, {"c": 2}], "x-y": 3}, "s": "text", "n": null, "f": false});
        for path in [
            ".",
            ".a",
            ".a.b",
            ".a.b[0]",
            ".a.b[-1].c",
            ".a.\"x-y\"",
            ".a[\"x-y\"]",
            ".[\"a\"].b",
            ".n.deep.er",
            ".none",
            ".a.b[9]",
            ".n[0]",
            "$h[\"x-y\"]",
            "$partition.repo",
            "$type",
            ".n // .s",
            ".f // .none",
            ".none // .f",
        ] {
            let plain = Expr::compile(path).expect(path);
            assert!(matches!(plain.0.code, Code::Path(_)), "{path} is plain");
            // `(…)` makes the same text enter jq.
            assert_eq!(first(path, &input), first(&format!("({path})"), &input), "{path}");
        }
        for wrong in [".s.a", ".a.b.c", ".s[0]", ".f.x"] {
            assert!(first(wrong, &input).is_err() && first(&format!("({wrong})"), &input).is_err(), "{wrong}");
        }
        assert_eq!(Expr::compile(".a.b").expect("path").path(), Some(&["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(Expr::compile(".a[0]").expect("path").path(), None);
    }

    #[test]
    fn an_expression_tells_which_variables_it_reads() {
        let read = |text: &str| {
            let expr = Expr::compile(text).expect(text);
            expr.variables().map(|(name, field)| format!("{name} {}", field.unwrap_or("-"))).collect::<Vec<_>>()
        };
        assert_eq!(read("$h[\"x-total\"]"), ["$h x-total"]);
        assert_eq!(read(".a // $connection.id"), ["$connection id"]);
        assert_eq!(read("[$partition.repo, ($h | length)]"), ["$partition repo", "$h -"]);
        assert_eq!(read("\"\\($q.page)\" | tonumber"), ["$q page"]);
        assert_eq!(
            read("reduce .[] as $x (0; . + $x)"),
            Vec::<String>::new(),
            "its own names are no variables of ours"
        );
        assert_eq!(read(".a as $h | $h"), Vec::<String>::new());
        assert_eq!(first("$h[\"x-y\"] as $h | $h", &Value::Null), Ok(json!("z")));
        assert_eq!(
            first("{a: $h[\"x-y\"], b: $partition.repo, c: $q}", &Value::Null),
            Ok(json!({"a": "z", "b": "r", "c": null}))
        );
    }

    #[test]
    fn an_expression_tells_whether_it_may_leave_out_what_it_is_given() {
        let drops = |text: &str| Expr::compile(text).expect(text).drops();
        for text in [
            ".",
            ".data",
            ".a // .b",
            ".data[]",
            "[.edges[].node]",
            ".rows | map({id: .a})",
            ".m | to_entries",
            ".a[], .b[]",
        ] {
            assert!(!drops(text), "{text}");
        }
        for text in [
            ".data[] | select(.ok)",
            ".data // []",
            ".data[]?",
            "try .data[]",
            ".data[:9]",
            "if .ok then .data else [] end",
            ".data | map(select(.ok))",
        ] {
            assert!(drops(text), "{text}");
        }
    }

    #[test]
    fn expressions_of_the_examples() {
        let input =
            json!({"labels": [{"name": "x"}, {"name": "y"}], "action": "deleted", "pull_request": null, "e": "A@B"});
        assert_eq!(first("[.labels[].name]", &input), Ok(json!(["x", "y"])));
        assert_eq!(first(".pull_request | not", &input), Ok(json!(true)));
        assert_eq!(first(".action | IN(\"deleted\", \"transferred\")", &input), Ok(json!(true)));
        assert_eq!(first("IN(.action; \"a\", \"b\")", &input), Ok(json!(false)));
        assert_eq!(first(".e | ascii_downcase?", &input), Ok(json!("a@b")));
        assert_eq!(first(".none | ascii_downcase?", &input), Ok(Value::Null));
        assert_eq!(first("[$partition.repo, .action]", &input), Ok(json!(["r", "deleted"])));
        assert_eq!(first("\"\\(.action)-\\(.e)\"", &input), Ok(json!("deleted-A@B")));
        assert_eq!(first("reduce .labels[] as $l (0; . + 1)", &input), Ok(json!(2)));
        assert_eq!(first("3 * 4 + 1", &input), Ok(json!(13)));
        assert_eq!(first("\"ab\" * 2", &input), Ok(json!("abab")));
        assert_eq!(first("[limit(3; range(100))]", &input), Ok(json!([0, 1, 2])));
        assert_eq!(first("del(.labels[]) | .labels", &input), Ok(json!([])));
        assert_eq!(first("[1, \"a\", null, true] | join(\"-\")", &input), Ok(json!("1-a--true")));
        assert_eq!(first(".labels |= map(.name) | .labels", &input), Ok(json!(["x", "y"])));
        assert_eq!(first(".e | gsub(\"[AB]\"; \"x\")", &input), Ok(json!("x@x")));
        assert_eq!(first("{action, n: (.labels | length)}", &input), Ok(json!({"action": "deleted", "n": 2})));
        assert_eq!(first("[paths(type == \"string\")] | length", &input), Ok(json!(4)));
        assert_eq!(first("\"Hi \\(.action | ascii_upcase)\"", &input), Ok(json!("Hi DELETED")));
        assert_eq!(first(".labels[0].name |= . + \"!\" | .labels[0].name", &input), Ok(json!("x!")));
    }

    #[test]
    fn numbers_keep_their_digits() {
        for number in ["12345678901234567890123", "0.10000000000000000055", "1.50", "1e400", "-0", "9007199254740993"] {
            let input: Value = serde_json::from_str(&format!("{{\"n\":{number}}}")).expect("json");
            let out = first("{n} | .n", &input).expect("evaluates");
            let expected = input["n"].to_string();
            let shown = out.to_string();
            assert!(shown == expected || number == "-0" && out == 0, "{number} became {out}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "def f: f; f",
            "recurse",
            "..",
            ".. | numbers",
            "while(true; .)",
            "until(false; .)",
            "repeat(.)",
            "env",
            "$ENV",
            "$ENV.PATH",
            "now",
            "halt",
            "halt_error",
            "input",
            "[inputs]",
            "debug",
            "stderr",
            "range(1000000)",
            "range(.n)",
            "combinations",
            "limit(.n; .[])",
            "[limit(5; repeat(1))]",
            ".a *= .b",
            "range(0; 5; 0)",
            "[1,2] | map(recurse)",
            "if . then .. else . end",
            "{a: now}",
            "\"\\(now)\"",
            ".[env.x]",
            "limit(3; range(0; 10; .x))",
        ] {
            assert_eq!(refusal(text), "unbounded_expression", "{text}");
        }
        for text in [
            "",
            ".a |",
            "nope",
            ".a[",
            "(",
            ")",
            "$nope",
            "$body",
            "@nope",
            "a.b",
            "lenght",
            "1 +",
            "\"",
            "include \"x\"; .",
        ] {
            assert_eq!(refusal(text), "bad_expression", "{text}");
        }
        assert_eq!(refusal(&"[".repeat(3000)), "bad_expression");
        assert_eq!(refusal(&format!("{}1", "-".repeat(3000))), "bad_expression");
        assert_eq!(refusal(&".a|".repeat(1300)), "bad_expression");
        assert_eq!(refusal(&format!(".{}", " ".repeat(MAX_TEXT))), "bad_expression");
        assert_eq!(Expr::compile(".a | nope(1)").expect_err("unknown").at, 5);
        assert!(Expr::compile("lenght").expect_err("near").message.contains("`length`"));
        assert!(Expr::compile_verify("secure_eq($secret; $h.a)").is_ok());
    }

    #[test]
    fn evaluation_is_bounded() {
        let many = json!((0..2_000).collect::<Vec<_>>());
        for text in [
            "[.[] as $a | .[] as $b | 1] | length",
            "[.[] as $a | .[] as $b | .[] as $c | empty]",
            "reduce .[] as $x (\"ab\"; . + .)",
            "reduce .[] as $x (1; [., .])",
            "reduce .[] as $x (1; [.])",
            "reduce .[] as $x (10; . * .)",
            "[.[] | .[]?]| [.[] , .[], .[], .[], .[], .[]] | [.[], .[], .[] ] | \"x\" * 100000000",
            ".[] , .[] , .[], .[], .[], .[]",
            "[.[] as $a | .[] as $b | (.[] | error)?]",
            "[.[] | tostring] | join(\"x\" * 100000)",
            "(\"x\" * 100000) as $x | [.[] | $x] | add | length",
            "\"x\" * 4000000 | gsub(\"\"; \"y\" * 4000) | length",
        ] {
            let result = Expr::compile(text).expect(text).all(&many, &Vars::default());
            assert!(result.is_err(), "{text}: {:?}", result.map(|v| v.len()));
        }
        for step in [
            " | . + .",
            " | \"\\(.)\\(.)\"",
            " | [., .]",
            " | [., .] | add",
            " | tojson",
            " | {a: ., b: .}",
            " | [., .] | join(\"\")",
        ] {
            let doubling = format!("\"aa\\\\\"{}", step.repeat(40));
            assert!(first(&doubling, &Value::Null).is_err(), "{step}");
            assert!(first(&format!("{doubling} | tojson | length"), &Value::Null).is_err(), "{step}");
        }
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(first("length", &deep).is_err());
    }

    #[test]
    fn added_functions() {
        let null = Value::Null;
        let mac = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let text = "hmac(\"sha256\"; \"It's a Secret to Everybody\"; \"Hello, World!\") | hex";
        assert_eq!(first(text, &null), Ok(json!(mac)));
        assert_eq!(first("secure_eq(\"a\"; \"a\"), 1", &null), Ok(json!(true)));
        assert_eq!(first("secure_eq(\"a\"; null)", &null), Ok(json!(false)));
        assert_eq!(first("secure_eq(\"\"; \"\")", &null), Ok(json!(false)));
        assert_eq!(first("\"hi\" | base64", &null), Ok(json!("aGk=")));
        assert_eq!(first("1767323045250 | iso8601", &null), Ok(json!("2026-01-02T03:04:05.250000Z")));
        assert_eq!(first("\"2026-01-02T03:04:05.25Z\" | epoch_ms", &null), Ok(json!(1767323045250i64)));
        assert!(first("hmac(\"md5\"; \"k\"; \"d\")", &null).is_err());
        assert!(first("hmac(\"sha1\"; \"k\"; \"d\")", &null).expect_err("bytes").contains("hex"));
    }

    /// Text from outside may nest deeper than any stack, and an overflow ends the process.
    #[test]
    fn json_in_texts_is_read_to_a_depth() {
        let deep = "[".repeat(1_000_000);
        let texts = [
            deep.clone(),
            "{\"a\":".repeat(1_000_000),
            // What opens no string, and where the reader might go on behind an error.
            format!("# \"\n{deep}"),
            format!("\"\\q{deep}"),
            format!("\"\n{deep}"),
            format!("{}1{}", "[".repeat(65), "]".repeat(65)),
        ];
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let thread = small.spawn(move || {
            for text in texts {
                let input = json!({"s": text});
                for read in
                    ["(.s | fromjson)", ".[.s | fromjson]", ".s | tonumber", ".s | toboolean", "[.s | fromjson]"]
                {
                    assert!(first(read, &input).is_err(), "{read} of {}", &text[..8]);
                }
                assert_eq!(first("(.s | fromjson)? // 1", &input), Ok(json!(1)));
            }
        });
        thread.expect("spawned").join().expect("no overflow");
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(first("fromjson | flatten", &json!(nested(64))), Ok(json!([1])));
        assert_eq!(first("fromjson", &json!("{\"a\": \"[[[\\\"[[[\"}")), Ok(json!({"a": "[[[\"[[["})));
        assert_eq!(first("fromjson", &json!(format!("\"{}\"", "[".repeat(100)))), Ok(json!("[".repeat(100))));
        assert_eq!(first("[fromjson]", &json!("1 [2] 3")), Ok(json!([1, [2], 3])));
        assert_eq!(first("tonumber", &json!("17")), Ok(json!(17)));
        assert!(first("fromjson", &json!("nope")).expect_err("no JSON").contains("nope"));
    }

    /// Worker threads have small stacks.
    #[test]
    fn deep_expressions_fit_a_small_stack() {
        let text = format!("{}. + 1{}", "map(".repeat(60), ")".repeat(60));
        let mut input = json!(1);
        for _ in 0..60 {
            input = json!([input]);
        }
        let expr = Expr::compile(&text).expect("compiles");
        let pipes = Expr::compile(&format!("{}.", ". | ".repeat(90))).expect("compiles");
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let thread = small.spawn(move || (expr.first(&input, &Vars::default()), pipes.first(&input, &Vars::default())));
        let (mapped, piped) = thread.expect("spawned").join().expect("no overflow");
        assert!(mapped.is_ok() && piped.is_ok());
    }

    #[test]
    fn an_expression_is_shared_by_threads() {
        fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
        let expr = Expr::compile("[.[] | . + 1]").expect("compiles");
        shared(&expr);
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let expr = expr.clone();
                std::thread::spawn(move || expr.first(&json!([i]), &Vars::default()))
            })
            .collect();
        for (i, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().expect("no panic"), Ok(json!([i + 1])));
        }
    }
}
