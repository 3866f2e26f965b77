//! As much of Rust as it takes to see what a file imports.

/// A text without comments, literals and what is only compiled for tests.
pub(super) fn of(text: &str) -> String {
    without_tests(&without_literals(text))
}

/// Puts a blank in the place of each comment, string and character.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[length..];
    }
    code
}

/// How long the string is that a text begins with.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text[1..].find(|c| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

/// How long the character is that a text begins with; of a lifetime it is the mark alone.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(1, |end| end + 4),
        Some(_) => match chars.next() {
            Some((end, '\'')) => end + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// Leaves out each item with `#[cfg(test)]` before it.
fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut left = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(TEST) {
        left.push_str(&rest[..at]);
        let item = &rest[at + TEST.len()..];
        let mut depth = 0;
        let end = item.find(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(c, ';' | '}')
        });
        rest = end.map_or("", |end| &item[end + 1..]);
    }
    left + rest
}

/// The modules that stand in files of their own.
pub(super) fn modules(code: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "mod");
    let modules: Vec<&str> = pairs.filter_map(|pair| pair[1].strip_suffix(';')).collect();
    modules.into_iter()
}

/// The types and traits that a file defines; what an `impl` or a trait has in it is none.
pub(super) fn types(code: &str) -> impl Iterator<Item = &str> {
    let items = ["struct ", "enum ", "union ", "trait ", "type "];
    let mut depth = 0_usize;
    let mut types = Vec::new();
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let begins_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if depth == 0 && begins_word {
            let rest = &code[at..];
            let name = items.iter().find_map(|item| rest.strip_prefix(item));
            types.extend(name.map(word).filter(|name| !name.is_empty()));
        }
    }
    types.into_iter()
}

/// Every path that begins with `crate`, `self` or `super`, those of `use` in braces each by itself.
pub(super) fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut before = ' ';
    let mut at = 0;
    while let Some(first) = code[at..].chars().next() {
        let word = word(&code[at..]);
        let is_root = matches!(word, "crate" | "self" | "super")
            && before != ':'
            && code[at + word.len()..].starts_with("::");
        if is_root {
            let mut rest = &code[at..];
            tree(&mut rest, &[], &mut paths);
        }
        let length = word.len().max(first.len_utf8());
        before = code[at..at + length].chars().next_back().unwrap_or(' ');
        at += length;
    }
    paths
}

/// Reads one tree of paths.
fn tree(rest: &mut &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let mut path = before.to_vec();
    loop {
        *rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            *rest = inner;
            while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
                tree(rest, &path, paths);
                let end = rest.find([',', '}']).unwrap_or(rest.len());
                *rest = rest[end..].trim_start_matches(',');
            }
            *rest = rest.trim_start().strip_prefix('}').unwrap_or("");
            return;
        }
        let name = word(rest);
        // What stands in braces by itself is what stands before them.
        if !name.is_empty() && (name != "self" || path.is_empty()) {
            path.push(name.to_owned());
        }
        *rest = &rest[name.len()..];
        match rest.strip_prefix("::") {
            Some(further) if !name.is_empty() => *rest = further,
            _ => break,
        }
    }
    paths.push(path);
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_no_code() {
        for (text, code) in [
            ("a // b\nc", "a  \nc"),
            ("a(\"b \\\" c\", 'd', '\\'', '\\u{1f}')", "a( ,  ,  ,  )"),
            ("fn a<'b>(c: &'b str)", "fn a< b>(c: & b str)"),
            ("a /* b */ c", "a   c"),
            (
                "a;\n#[cfg(test)]\nmod tests { fn b() { c(); } }\nd;",
                "a;\n\nd;",
            ),
            ("#[cfg(test)]\nuse a;\nb", "\nb"),
        ] {
            assert_eq!(of(text), code);
        }
    }

    #[test]
    fn modules_are_those_in_files_that_are_not_for_tests() {
        let code = of("mod a; pub(crate) mod b;\nmod c { mod d; }\n#[cfg(test)]\nmod tests;");
        assert_eq!(modules(&code).collect::<Vec<_>>(), ["a", "b", "d"]);
    }

    #[test]
    fn paths_are_read_from_imports_and_from_code() {
        let found =
            |code: &str| -> Vec<String> { paths(code).iter().map(|path| path.join(" ")).collect() };
        assert_eq!(
            found("use crate::{a, b::{self, C as D}, e::*};"),
            ["crate a", "crate b", "crate b C", "crate e"]
        );
        assert_eq!(found("pub use super::super::a;"), ["super super a"]);
        assert_eq!(
            found("self.a(crate::b::c(super::D))"),
            ["crate b c", "super D"]
        );
        assert!(found("use std::io; self.crate_of(x::super_y)").is_empty());
    }
}
