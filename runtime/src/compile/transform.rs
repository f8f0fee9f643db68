//! One TypeScript file to one ES module: types removed, enums and namespaces lowered, lines remembered.

use super::lines::{LineMap, place};
use super::{Complaint, Declaration, ModuleCode};
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    Argument, CallExpression, Declaration as Declared, Expression, ImportDeclaration, ImportDeclarationSpecifier,
    ObjectPropertyKind, Program, Statement, StringLiteral, VariableDeclaration,
};
use oxc_codegen::{Codegen, CodegenOptions, CommentOptions};
use oxc_diagnostics::{Diagnostics, OxcDiagnostic};
use oxc_parser::Parser;
use oxc_semantic::SemanticBuilder;
use oxc_span::SourceType;
use oxc_transformer::{TransformOptions, Transformer};
use std::path::{Path, PathBuf};

/// What a function is declared by.
const CREATORS: [&str; 3] = ["createSync", "createAction", "createOnEvent"];

/// A transformed file.
pub(super) struct Transformed {
    pub(super) module: ModuleCode,
    /// What it imports once types are gone.
    pub(super) imports: Vec<Import>,
    /// What it declares, where that is a call of a `create…`.
    pub(super) declaration: Option<Declaration>,
}

/// An import of another module.
pub(super) struct Import {
    pub(super) specifier: String,
    pub(super) line: u32,
    pub(super) column: u32,
    /// What is taken from it by name.
    pub(super) names: Vec<Name>,
}

/// A name that is imported.
pub(super) struct Name {
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Transforms a file. All errors of the file are told at once.
pub(super) fn transform(name: &str, text: &str) -> Result<Transformed, Vec<Complaint>> {
    let allocator = Allocator::default();
    // Plain JavaScript may be what a bundler wrote of TypeScript; both are modules.
    let source_type = if name.ends_with(".ts") { SourceType::ts() } else { SourceType::mjs() };
    let parsed = Parser::new(&allocator, text, source_type).parse();
    complain(name, text, &parsed.diagnostics)?;
    let mut program = parsed.program;
    let semantic = SemanticBuilder::new().with_excess_capacity(2.0).with_enum_eval(true).build(&program);
    complain(name, text, &semantic.diagnostics)?;
    let options = TransformOptions::default();
    let transformed = Transformer::new(&allocator, Path::new(name), &options)
        .build_with_scoping(semantic.semantic.into_scoping(), &mut program);
    complain(name, text, &transformed.diagnostics)?;
    let imports = imports(&program, text);
    let declaration = program.body.iter().find_map(created).map(|call| declaration(call, text));
    let options = CodegenOptions {
        source_map_path: Some(PathBuf::from(name)),
        comments: CommentOptions::disabled(),
        ..CodegenOptions::default()
    };
    let printed = Codegen::new().with_options(options).build(&program);
    let lines = printed.map.map_or_else(LineMap::default, |map| {
        let from_one = |n: u32| n.saturating_add(1);
        let places = map.get_tokens().map(|token| {
            let generated = [from_one(token.get_dst_line()), from_one(token.get_dst_col())];
            [generated[0], generated[1], from_one(token.get_src_line()), from_one(token.get_src_col())]
        });
        LineMap::new(places.collect())
    });
    Ok(Transformed { module: ModuleCode { code: printed.code, lines }, imports, declaration })
}

/// The errors among these; warnings are the editor's.
fn complain(name: &str, text: &str, diagnostics: &Diagnostics) -> Result<(), Vec<Complaint>> {
    let complaints: Vec<Complaint> = diagnostics.errors().map(|error| complaint(name, text, error)).collect();
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(complaints),
    }
}

fn complaint(name: &str, text: &str, error: &OxcDiagnostic) -> Complaint {
    let (line, column) = error.labels.iter().next().map_or((0, 0), |label| place(text, label.offset() as usize));
    let message = match &error.help {
        Some(help) => format!("{} ({help})", error.message),
        None => error.message.to_string(),
    };
    Complaint { file: name.to_owned(), line, column, code: "syntax", message }
}

fn imports(program: &Program<'_>, text: &str) -> Vec<Import> {
    let import = |source: &StringLiteral<'_>, names| {
        let (line, column) = place(text, source.span.start as usize);
        Import { specifier: source.value.to_string(), line, column, names }
    };
    let of_statement = |statement: &Statement<'_>| match statement {
        Statement::ImportDeclaration(declaration) => Some(import(&declaration.source, names(declaration, text))),
        Statement::ExportAllDeclaration(declaration) => Some(import(&declaration.source, Vec::new())),
        Statement::ExportFromDeclaration(declaration) => Some(import(&declaration.source, Vec::new())),
        _ => None,
    };
    program.body.iter().filter_map(of_statement).collect()
}

fn names(declaration: &ImportDeclaration<'_>, text: &str) -> Vec<Name> {
    let specifiers = declaration.specifiers.iter().flatten();
    let named = specifiers.filter_map(|specifier| match specifier {
        ImportDeclarationSpecifier::ImportSpecifier(specifier) => Some(specifier),
        _ => None,
    });
    named
        .map(|specifier| {
            let (line, column) = place(text, specifier.span.start as usize);
            Name { name: specifier.imported.name().to_string(), line, column }
        })
        .collect()
}

/// The call of a `create…` that a statement is, or gives a name to.
fn created<'a, 's>(statement: &'s Statement<'a>) -> Option<&'s CallExpression<'a>> {
    match statement {
        Statement::ExportDefaultDeclaration(export) => creates(export.declaration.as_expression()?),
        Statement::VariableDeclaration(variables) => named(variables),
        Statement::ExportDeclaration(export) => match &export.declaration {
            Declared::VariableDeclaration(variables) => named(variables),
            _ => None,
        },
        _ => None,
    }
}

fn named<'a, 's>(variables: &'s VariableDeclaration<'a>) -> Option<&'s CallExpression<'a>> {
    variables.declarations.iter().find_map(|variable| creates(variable.init.as_ref()?))
}

fn creates<'a, 's>(expression: &'s Expression<'a>) -> Option<&'s CallExpression<'a>> {
    let Expression::CallExpression(call) = expression else { return None };
    let Expression::Identifier(callee) = &call.callee else { return None };
    CREATORS.contains(&callee.name.as_str()).then_some(call)
}

fn declaration(call: &CallExpression<'_>, text: &str) -> Declaration {
    let properties = match call.arguments.first() {
        Some(Argument::ObjectExpression(object)) => object.properties.as_slice(),
        _ => &[],
    };
    let of_property = |property: &ObjectPropertyKind<'_>| match property {
        ObjectPropertyKind::ObjectProperty(property) => {
            Some((property.key.static_name()?.into_owned(), place(text, property.span.start as usize)))
        }
        ObjectPropertyKind::SpreadProperty(_) => None,
    };
    Declaration {
        call: place(text, call.span.start as usize),
        properties: properties.iter().filter_map(of_property).collect(),
    }
}
