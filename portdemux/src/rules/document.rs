//! TOML as it is written: sections, their entries and where in the text each stands.
//!
//! A rules file can hold 65,536 tables. Trees of maps cost several times the parsing itself, so that
//! a document is read as a stream of [`Section`]s on the events of `toml_parser`. What TOML asks of
//! keys across sections (no table twice, none extended that was written inline) is left to the
//! reader of the sections, who knows every key that can stand in one.

use std::{borrow::Cow, cell::RefCell, mem};

use toml_parser::{
    ErrorSink, ParseError, Raw, Source, Span,
    decoder::{Encoding, ScalarKind},
    lexer::{Token, TokenKind},
    parser::{EventReceiver, RecursionGuard, ValidateWhitespace, parse_document},
};

/// How deep values can be nested; more than any rules file needs, less than a stack holds.
const MAX_DEPTH: u32 = 16;

/// How many tokens are parsed at a time, at least: few enough to stay in a CPU's nearest cache.
const PIECE: usize = 512;

/// A table header and the entries that follow it, up to the next header.
#[derive(Debug, Default)]
pub(super) struct Section<'t> {
    /// The header; none for what stands before the first one.
    pub(super) header: Option<Header<'t>>,
    /// The entries in the order they were written.
    pub(super) entries: Vec<Pair<'t>>,
    /// Whether something in it is not TOML, so that what was read of it may lack parts.
    pub(super) broken: bool,
}

/// `[a.b]` or `[[a.b]]`.
#[derive(Debug)]
pub(super) struct Header<'t> {
    /// The parts of the table's name.
    pub(super) path: Vec<Key<'t>>,
    /// Whether it has two brackets.
    pub(super) is_list: bool,
    /// Where the brackets open.
    pub(super) offset: usize,
}

/// Part of a key.
#[derive(Debug)]
pub(super) struct Key<'t> {
    /// The part, with quotes and escapes resolved.
    pub(super) text: Cow<'t, str>,
    /// Where it begins.
    pub(super) offset: usize,
}

/// `key = value`.
#[derive(Debug)]
pub(super) struct Pair<'t> {
    /// The key, or the first part of a dotted one.
    pub(super) key: Key<'t>,
    /// The other parts of a dotted key.
    pub(super) rest: Vec<Key<'t>>,
    /// The value.
    pub(super) value: Value<'t>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Value<'t> {
    /// What it is.
    pub(super) kind: ValueKind<'t>,
    /// Where it begins.
    pub(super) offset: usize,
    /// Where the text after it begins.
    pub(super) end: usize,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum ValueKind<'t> {
    /// A string, with quotes and escapes resolved.
    Text(Cow<'t, str>),
    /// `[…, …]`
    List(Vec<Value<'t>>),
    /// `{ … }`
    Table(Vec<Pair<'t>>),
    /// Anything else.
    Other(Scalar),
}

/// A value that is neither text nor made of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number, if it is one that can be counted with.
    Integer(Option<u64>),
    /// Any other number.
    Float,
    /// A date, a time of day or both.
    Date,
}

impl ValueKind<'_> {
    /// What it is called, with an article.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(Scalar::Boolean(_)) => "true or false",
            Self::Other(Scalar::Integer(_) | Scalar::Float) => "a number",
            Self::Other(Scalar::Date) => "a date",
        }
    }
}

/// Reads a document, one section after the other, and returns what in it is not TOML.
pub(super) fn read<'t>(text: &'t str, each: &mut dyn FnMut(&Section<'t>)) -> Vec<ParseError> {
    let source = Source::new(text);
    let errors = RefCell::new(Vec::new());
    let mut sink = |error| errors.borrow_mut().push(error);
    let mut reader = Reader {
        source,
        each,
        section: Section::default(),
        in_header: false,
        path: Vec::new(),
        open: Vec::new(),
        errors: &errors,
        errors_before: 0,
    };
    {
        let mut guarded = RecursionGuard::new(&mut reader, MAX_DEPTH);
        let mut validated = ValidateWhitespace::new(&mut guarded, source);
        for_each_piece(source, |tokens| {
            parse_document(tokens, &mut validated, &mut sink);
        });
    }
    reader.end_section();
    errors.into_inner()
}

/// Cuts a document into pieces that each begin a line and can be parsed one after the other.
///
/// The tokens of a large document take ten times the memory of its text; fetching that from the
/// kernel takes a third of the time that reading takes.
fn for_each_piece(source: Source<'_>, mut parse: impl FnMut(&[Token])) {
    let mut tokens: Vec<Token> = Vec::with_capacity(2 * PIECE);
    let mut depth = 0_usize;
    for token in source.lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                let begins_line = tokens
                    .last()
                    .is_some_and(|before| before.kind() == TokenKind::Newline);
                if tokens.len() >= PIECE && depth == 0 && begins_line {
                    parse(&tokens);
                    tokens.clear();
                }
                depth += 1;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = depth.saturating_sub(1);
            }
            TokenKind::Dot
            | TokenKind::Equals
            | TokenKind::Comma
            | TokenKind::Comment
            | TokenKind::Whitespace
            | TokenKind::Newline
            | TokenKind::LiteralString
            | TokenKind::BasicString
            | TokenKind::MlLiteralString
            | TokenKind::MlBasicString
            | TokenKind::Atom
            | TokenKind::Eof => {}
        }
        tokens.push(token);
    }
    parse(&tokens);
}

struct Reader<'t, 'r> {
    source: Source<'t>,
    each: &'r mut dyn FnMut(&Section<'t>),
    section: Section<'t>,
    in_header: bool,
    /// The parts of the key whose value comes next.
    path: Vec<Key<'t>>,
    /// The lists and inline tables around the next value.
    open: Vec<Open<'t>>,
    errors: &'r RefCell<Vec<ParseError>>,
    errors_before: usize,
}

enum Open<'t> {
    List {
        offset: usize,
        values: Vec<Value<'t>>,
    },
    Table {
        offset: usize,
        entries: Vec<Pair<'t>>,
        outer: Vec<Key<'t>>,
    },
}

impl<'t> Reader<'t, '_> {
    fn begin_section(&mut self, offset: usize, is_list: bool) {
        self.end_section();
        self.in_header = true;
        let path = self
            .section
            .header
            .take()
            .map_or_else(Vec::new, |header| header.path);
        self.section.header = Some(Header {
            path,
            is_list,
            offset,
        });
    }

    /// Hands the section over and makes room for the next, in the same memory.
    fn end_section(&mut self) {
        let count = self.errors.borrow().len();
        self.section.broken = count > self.errors_before;
        self.errors_before = count;
        (self.each)(&self.section);
        self.section.entries.clear();
        if let Some(header) = &mut self.section.header {
            header.path.clear();
        }
        self.path.clear();
        self.open.clear();
    }

    fn raw(&self, span: Span, encoding: Option<Encoding>) -> Raw<'t> {
        let text = self
            .source
            .input()
            .get(span.start()..span.end())
            .unwrap_or_default();
        Raw::new_unchecked(text, encoding, span)
    }

    fn value(&mut self, kind: ValueKind<'t>, offset: usize, end: usize) {
        let value = Value { kind, offset, end };
        if let Some(Open::List { values, .. }) = self.open.last_mut() {
            values.push(value);
            return;
        }
        let mut path = self.path.drain(..);
        let Some(key) = path.next() else { return };
        let entry = Pair {
            key,
            rest: path.collect(),
            value,
        };
        match self.open.last_mut() {
            Some(Open::Table { entries, .. }) => entries.push(entry),
            Some(Open::List { .. }) | None => self.section.entries.push(entry),
        }
    }
}

impl EventReceiver for Reader<'_, '_> {
    fn std_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.begin_section(span.start(), false);
    }

    fn std_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.in_header = false;
    }

    fn array_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.begin_section(span.start(), true);
    }

    fn array_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.in_header = false;
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        let outer = mem::take(&mut self.path);
        self.open.push(Open::Table {
            offset: span.start(),
            entries: Vec::new(),
            outer,
        });
        true
    }

    fn inline_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        if let Some(Open::Table {
            offset,
            entries,
            outer,
        }) = self.open.pop()
        {
            self.path = outer;
            self.value(ValueKind::Table(entries), offset, span.end());
        }
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.open.push(Open::List {
            offset: span.start(),
            values: Vec::new(),
        });
        true
    }

    fn array_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        if let Some(Open::List { offset, values }) = self.open.pop() {
            self.value(ValueKind::List(values), offset, span.end());
        }
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut text = Cow::Borrowed("");
        self.raw(span, encoding).decode_key(&mut text, error);
        let key = Key {
            text,
            offset: span.start(),
        };
        match &mut self.section.header {
            Some(header) if self.in_header => header.path.push(key),
            Some(_) | None => self.path.push(key),
        }
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut text = Cow::Borrowed("");
        let kind = match self.raw(span, encoding).decode_scalar(&mut text, error) {
            ScalarKind::String => ValueKind::Text(text),
            ScalarKind::Boolean(is_true) => ValueKind::Other(Scalar::Boolean(is_true)),
            ScalarKind::DateTime => ValueKind::Other(Scalar::Date),
            ScalarKind::Float => ValueKind::Other(Scalar::Float),
            ScalarKind::Integer(radix) => {
                let digits = text.replace('_', "");
                let number = u64::from_str_radix(&digits, radix.value());
                ValueKind::Other(Scalar::Integer(number.ok()))
            }
        };
        self.value(kind, span.start(), span.end());
    }

    fn newline(&mut self, _: Span, _: &mut dyn ErrorSink) {
        // Ends a header or an entry that was never completed.
        if self.open.is_empty() {
            self.in_header = false;
            self.path.clear();
        }
    }
}
