//! No file may refer to something that a reader of this repository does not have.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{files, repository, say};

/// Working papers and paths of someone's machine. Written in pieces, since this file is checked too.
const FOREIGN: [&str; 3] = [
    concat!("shared", "/"),
    concat!("/work", "/"),
    concat!("/root", "/."),
];

/// Checks every text file of the repository.
pub(super) fn check() -> Result<()> {
    let mut found = Vec::new();
    for file in files::all()? {
        let path = repository::root().join(&file);
        let content = fs::read(&path).with_context(|| format!("read {}", file.display()))?;
        // What is not text (captures, images) refers to nothing.
        let Ok(text) = String::from_utf8(content) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for reference in foreign(&file, line) {
                found.push(format!("{}:{}: {reference}", file.display(), number + 1));
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    for reference in &found {
        say::line(reference);
    }
    bail!(
        "{} references to what is not in this repository",
        found.len()
    );
}

/// What a line of a file refers to outside the repository.
fn foreign<'a>(file: &'a Path, line: &'a str) -> impl Iterator<Item = &'a str> {
    line.split(|c: char| c.is_whitespace() || "\"'`()<>[],;".contains(c))
        .filter(move |word| {
            FOREIGN.iter().any(|foreign| {
                word.match_indices(foreign).any(|(at, _)| {
                    let before = word.get(..at).and_then(|before| before.chars().next_back());
                    before.is_none_or(|c| !c.is_alphanumeric())
                })
            }) || (word.starts_with("../") && climbs_out(file, word))
        })
}

/// Says whether a relative path, seen from a file of the repository, leaves the repository.
fn climbs_out(file: &Path, reference: &str) -> bool {
    // Sources also name paths relative to the root of their package.
    let mut directory = PathBuf::from(file);
    directory.pop();
    let mut depth = directory.components().count();
    for component in Path::new(reference).components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(file: &'a str, line: &'a str) -> Vec<&'a str> {
        foreign(Path::new(file), line).collect()
    }

    #[test]
    fn a_reference_to_working_papers_is_found() {
        let paper = concat!("shared", "/DESIGN.md");
        assert_eq!(
            found("README.md", &format!("see {paper}, chapter 2")),
            [paper]
        );
        let above = concat!("../shared", "/DESIGN.md");
        assert_eq!(found("docs/x.md", &format!("see [it]({above})")), [above]);
    }

    #[test]
    fn a_reference_within_the_repository_is_not() {
        assert!(found("docs/x.md", "[readme](../README.md)").is_empty());
        assert!(found("README.md", "/usr/share/doc and unshared/x").is_empty());
    }

    #[test]
    fn a_path_that_climbs_out_is_found() {
        assert_eq!(found("docs/x.md", "[x](../../x.md)"), ["../../x.md"]);
        assert_eq!(found("README.md", "[x](../x.md)"), ["../x.md"]);
    }
}
