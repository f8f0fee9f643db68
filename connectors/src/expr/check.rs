//! What an expression may contain: an allow-list of functions, and meters put behind whatever can produce many values.

use super::CompileError;
use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Opt, Part, Path};

/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 100;
/// Largest literal bound of `range` and `limit`.
const MAX_RANGE: f64 = 10_000.0;

/// Functions an expression may use, whatever their number of arguments. Each ends on every finite input.
const ALLOWED: &[&str] = &[
    "IN",
    "abs",
    "add",
    "all",
    "any",
    "arrays",
    "ascii_downcase",
    "ascii_upcase",
    "base64",
    "booleans",
    "capture",
    "ceil",
    "contains",
    "del",
    "delpaths",
    "empty",
    "endswith",
    "epoch_ms",
    "error",
    "explode",
    "fabs",
    "false",
    "first",
    "flatten",
    "floor",
    "fmax",
    "fmin",
    "from_entries",
    "fromdate",
    "fromdateiso8601",
    "fromjson",
    "getpath",
    "gmtime",
    "group_by",
    "gsub",
    "has",
    "hex",
    "hmac",
    "implode",
    "in",
    "index",
    "indices",
    "infinite",
    "inside",
    "isempty",
    "isfinite",
    "isinfinite",
    "isnan",
    "isnormal",
    "iso8601",
    "iterables",
    "join",
    "keys",
    "keys_unsorted",
    "last",
    "length",
    "limit",
    "log",
    "log10",
    "log2",
    "ltrim",
    "ltrimstr",
    "map",
    "map_values",
    "match",
    "max",
    "max_by",
    "min",
    "min_by",
    "mktime",
    "nan",
    "not",
    "nth",
    "null",
    "nulls",
    "numbers",
    "objects",
    "path",
    "paths",
    "pick",
    "pow",
    "range",
    "reverse",
    "rindex",
    "round",
    "rtrim",
    "rtrimstr",
    "scalars",
    "scan",
    "secure_eq",
    "select",
    "setpath",
    "skip",
    "sort",
    "sort_by",
    "split",
    "splits",
    "sqrt",
    "startswith",
    "strftime",
    "strings",
    "strptime",
    "sub",
    "test",
    "to_entries",
    "toboolean",
    "todate",
    "todateiso8601",
    "tojson",
    "tonumber",
    "tostring",
    "transpose",
    "trim",
    "true",
    "trunc",
    "type",
    "unique",
    "unique_by",
    "utf8bytelength",
    "values",
    "walk",
    "with_entries",
];

/// Functions that give as many elements as they are given: an empty result means an empty list.
const KEEPING: &[&str] =
    &["fromjson", "keys", "keys_unsorted", "map", "map_values", "reverse", "sort", "sort_by", "to_entries"];

/// Functions of jq that are left out on purpose, and why.
const REFUSED: &[(&str, &str)] = &[
    ("recurse", "it may never end"),
    ("while", "it may never end"),
    ("until", "it may never end"),
    ("repeat", "it may never end"),
    ("combinations", "its result grows without bound"),
    ("input", "an expression sees one value only"),
    ("inputs", "an expression sees one value only"),
    ("input_filename", "an expression sees one value only"),
    ("input_line_number", "an expression sees one value only"),
    ("env", "an expression sees its input and variables only"),
    ("now", "an expression must give the same result each time"),
    ("localtime", "an expression must give the same result on every machine"),
    ("strflocaltime", "an expression must give the same result on every machine"),
    ("halt", "it would stop the process"),
    ("halt_error", "it would stop the process"),
    ("debug", "an expression has no side effects"),
    ("stderr", "an expression has no side effects"),
    ("limit", "its first argument must be a whole number up to 10000"),
    ("range", "its bounds must be whole numbers up to 10000, or it must stand inside limit(n; …)"),
];

/// Checks a term and puts meters into it.
pub(super) struct Checker<'s> {
    /// The whole text, to find byte offsets.
    pub(super) text: &'s str,
    /// Variables of `verify` are allowed.
    pub(super) verify: bool,
    /// Variables that were met, each with the field read of it if that is written out.
    pub(super) used: Vec<(&'s str, Option<&'s str>)>,
    /// Names the expression binds itself.
    pub(super) bound: Vec<&'s str>,
    /// Functions, operators or slices were met that may leave out elements of a list they are given.
    pub(super) drops: bool,
    /// Inside `limit(n; …)`.
    limited: bool,
}

type CheckResult<T> = std::result::Result<T, CompileError>;

impl<'s> Checker<'s> {
    pub(super) fn new(text: &'s str, verify: bool) -> Self {
        Checker { text, verify, used: Vec::new(), bound: Vec::new(), drops: false, limited: false }
    }

    /// The term with meters, or why it is refused.
    pub(super) fn term(&mut self, term: Term<&'s str>, depth: usize) -> CheckResult<Term<&'s str>> {
        if depth > MAX_DEPTH {
            return Err(refuse("bad_expression", format!("nested deeper than {MAX_DEPTH} levels"), 0));
        }
        let d = depth + 1;
        Ok(match term {
            Term::Id | Term::Num(_) | Term::Break(_) => term,
            Term::Recurse => return Err(refuse("unbounded_expression", "`..` is not allowed", 0)),
            Term::Def(..) => {
                return Err(refuse("unbounded_expression", "`def` is not allowed: definitions may never end", 0));
            }
            Term::Var(name) => {
                self.variable(name)?;
                term
            }
            Term::Str(format, parts) => self.text(format, parts, d)?,
            Term::Arr(None) => Term::Arr(None),
            Term::Arr(Some(inner)) => metered(Term::Arr(Some(self.boxed(*inner, d)?)), "built__"),
            Term::Obj(entries) => metered(Term::Obj(self.entries(entries, d)?), "built__"),
            Term::Neg(inner) => Term::Neg(self.boxed(*inner, d)?),
            Term::Label(name, inner) => Term::Label(name, self.boxed(*inner, d)?),
            Term::TryCatch(inner, catch) => {
                self.drops = true;
                Term::TryCatch(self.boxed(*inner, d)?, catch.map(|t| self.boxed(*t, d)).transpose()?)
            }
            Term::IfThenElse(branches, otherwise) => {
                self.drops = true;
                let mut checked = Vec::with_capacity(branches.len());
                for (test, then) in branches {
                    checked.push((self.term(test, d)?, self.term(then, d)?));
                }
                Term::IfThenElse(checked, otherwise.map(|t| self.boxed(*t, d)).transpose()?)
            }
            Term::Fold(kind, source, pattern, arguments) => self.fold(kind, *source, pattern, arguments, d)?,
            Term::BinOp(left, op, right) => self.operation(*left, op, *right, d)?,
            Term::Path(head, path) => self.path(*head, path, d)?,
            Term::Call(name, arguments) => self.call(name, arguments, d)?,
        })
    }

    fn boxed(&mut self, term: Term<&'s str>, depth: usize) -> CheckResult<Box<Term<&'s str>>> {
        self.term(term, depth).map(Box::new)
    }

    fn variable(&mut self, name: &'s str) -> CheckResult<()> {
        match name {
            "$ENV" => Err(refuse(
                "unbounded_expression",
                "`$ENV`: an expression sees its input and variables only",
                self.at(name),
            )),
            "$body" | "$method" | "$url" | "$secret" if !self.verify => {
                Err(refuse("bad_expression", format!("`{name}` is known in `verify` only"), self.at(name)))
            }
            _ => {
                self.used.push((name, None));
                Ok(())
            }
        }
    }

    /// Names a pattern binds, which hide variables of ours.
    fn bind(&mut self, pattern: &Pattern<&'s str>) {
        match pattern {
            Pattern::Var(name) => self.bound.push(name),
            Pattern::Arr(parts) => parts.iter().for_each(|part| self.bind(part)),
            Pattern::Obj(parts) => parts.iter().for_each(|(_, part)| self.bind(part)),
        }
    }

    fn text(
        &mut self,
        format: Option<&'s str>,
        parts: Vec<StrPart<&'s str, Term<&'s str>>>,
        depth: usize,
    ) -> CheckResult<Term<&'s str>> {
        let mut checked = Vec::with_capacity(parts.len());
        let mut filled = format.is_some();
        for part in parts {
            checked.push(match part {
                StrPart::Term(term) => {
                    filled = true;
                    StrPart::Term(self.term(term, depth)?)
                }
                other => other,
            });
        }
        let text = Term::Str(format, checked);
        Ok(if filled { metered(text, "tick__") } else { text })
    }

    #[allow(clippy::type_complexity)]
    fn entries(
        &mut self,
        entries: Vec<(Term<&'s str>, Option<Term<&'s str>>)>,
        depth: usize,
    ) -> CheckResult<Vec<(Term<&'s str>, Option<Term<&'s str>>)>> {
        let mut checked = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            checked.push((self.term(key, depth)?, value.map(|t| self.term(t, depth)).transpose()?));
        }
        Ok(checked)
    }

    fn fold(
        &mut self,
        kind: &'s str,
        source: Term<&'s str>,
        pattern: Pattern<&'s str>,
        arguments: Vec<Term<&'s str>>,
        depth: usize,
    ) -> CheckResult<Term<&'s str>> {
        self.bind(&pattern);
        self.drops = true;
        let source = self.boxed(source, depth)?;
        let mut checked = Vec::with_capacity(arguments.len());
        for (place, argument) in arguments.into_iter().enumerate() {
            let argument = self.term(argument, depth)?;
            // The second argument is what is done in each round.
            checked.push(if place == 1 { metered(argument, "weigh__") } else { argument });
        }
        Ok(metered(Term::Fold(kind, source, pattern, checked), "tick__"))
    }

    fn operation(
        &mut self,
        left: Term<&'s str>,
        op: BinaryOp<&'s str>,
        right: Term<&'s str>,
        depth: usize,
    ) -> CheckResult<Term<&'s str>> {
        let literal = number(&right).is_some();
        match &op {
            BinaryOp::Pipe(pattern) => pattern.iter().for_each(|pattern| self.bind(pattern)),
            BinaryOp::Comma => {}
            _ => self.drops = true,
        }
        let (left, right) = (self.term(left, depth)?, self.term(right, depth)?);
        Ok(match op {
            BinaryOp::Math(Math::Mul) => Term::Call("times__", vec![left, right]),
            BinaryOp::UpdateMath(Math::Mul) if !literal => {
                let message = "`*=` takes a literal number only: it could repeat text without bound";
                return Err(refuse("unbounded_expression", message, 0));
            }
            // Text that is added to itself doubles; a comma multiplies what follows.
            BinaryOp::Comma | BinaryOp::Math(Math::Add) | BinaryOp::UpdateMath(_) => {
                metered(Term::BinOp(Box::new(left), op, Box::new(right)), "tick__")
            }
            _ => Term::BinOp(Box::new(left), op, Box::new(right)),
        })
    }

    fn path(&mut self, head: Term<&'s str>, path: Path<Term<&'s str>>, depth: usize) -> CheckResult<Term<&'s str>> {
        let variable = if let Term::Var(name) = &head { Some(*name) } else { None };
        let head = self.term(head, depth)?;
        if let (Some(name), Some((Part::Index(Term::Str(None, parts)), _))) = (variable, path.0.first())
            && let ([StrPart::Str(field)], Some(last)) = (parts.as_slice(), self.used.last_mut())
            && last.0 == name
        {
            last.1 = Some(field);
        }
        let mut many = false;
        let mut parts = Vec::with_capacity(path.0.len());
        for (part, optional) in path.0 {
            // `.a?` is silent about what has no `a`, a slice takes a part of a list.
            self.drops |= matches!(optional, Opt::Optional)
                || matches!(&part, Part::Range(from, to) if from.is_some() || to.is_some());
            let part = match part {
                Part::Index(term) => Part::Index(self.term(term, depth)?),
                Part::Range(from, to) => {
                    many |= from.is_none() && to.is_none();
                    let from = from.map(|t| self.term(t, depth)).transpose()?;
                    Part::Range(from, to.map(|t| self.term(t, depth)).transpose()?)
                }
            };
            parts.push((part, optional));
        }
        let term = Term::Path(Box::new(head), Path(parts));
        Ok(if many { metered(term, "tick__") } else { term })
    }

    fn call(&mut self, name: &'s str, arguments: Vec<Term<&'s str>>, depth: usize) -> CheckResult<Term<&'s str>> {
        let bounded = match name {
            "range" => self.limited || arguments.iter().all(|a| number(a).is_some_and(|n| n.abs() <= MAX_RANGE)),
            "limit" => arguments.first().and_then(number).is_some_and(|n| n <= MAX_RANGE),
            _ => ALLOWED.contains(&name),
        };
        // A step of zero would never reach the end.
        let stuck = name == "range" && arguments.get(2).is_some_and(|step| number(step).is_none_or(|n| n == 0.0));
        if !bounded || stuck {
            return Err(self.unknown(name, arguments.len()));
        }
        self.drops |= !KEEPING.contains(&name);
        let outer = self.limited;
        self.limited |= name == "limit";
        let mut checked = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let argument = self.term(argument, depth)?;
            // What is put in the place of a match may be put in many places.
            checked.push(if matches!(name, "sub" | "gsub") { metered(argument, "tick__") } else { argument });
        }
        self.limited = outer;
        Ok(metered(Term::Call(name, checked), "tick__"))
    }

    fn unknown(&self, name: &'s str, arguments: usize) -> CompileError {
        match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((_, why)) => {
                refuse("unbounded_expression", format!("`{name}` is not allowed here: {why}"), self.at(name))
            }
            None => {
                let near = crate::config_text::nearest(name, ALLOWED.iter().copied());
                let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                let message = format!("there is no function `{name}` with {arguments} arguments{near}");
                refuse("bad_expression", message, self.at(name))
            }
        }
    }

    /// Byte offset of a slice of the text.
    fn at(&self, part: &str) -> usize {
        (part.as_ptr() as usize)
            .checked_sub(self.text.as_ptr() as usize)
            .filter(|at| *at <= self.text.len())
            .unwrap_or(0)
    }
}

/// `term | meter`.
fn metered<'s>(term: Term<&'s str>, meter: &'static str) -> Term<&'s str> {
    Term::BinOp(Box::new(term), BinaryOp::Pipe(None), Box::new(Term::Call(meter, Vec::new())))
}

fn number(term: &Term<&str>) -> Option<f64> {
    match term {
        Term::Num(text) => text.parse().ok(),
        Term::Neg(inner) => number(inner).map(|n| -n),
        _ => None,
    }
}

fn refuse(code: &'static str, message: impl Into<String>, at: usize) -> CompileError {
    CompileError { code, message: message.into(), at }
}
