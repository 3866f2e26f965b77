//! Checks that what the Markdown files link to exists, file and heading.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{files, repository, say};

/// Checks every link of every Markdown file that leads to this repository.
pub(super) fn check() -> Result<()> {
    let mut broken = Vec::new();
    let mut checked = 0_usize;
    for file in files::all()? {
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for (line, target) in links(&read(&file)?) {
            checked += 1;
            if let Err(err) = follow(&file, &target) {
                broken.push(format!("{}:{line}: {target}: {err:#}", file.display()));
            }
        }
    }
    for link in &broken {
        say::line(link);
    }
    if !broken.is_empty() {
        bail!("{} of {checked} links are broken", broken.len());
    }
    say::line(format_args!("{checked} links lead somewhere"));
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(repository::root().join(file))
        .with_context(|| format!("read {}", file.display()))
}

/// Follows a link from a file.
fn follow(file: &Path, target: &str) -> Result<()> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let to = match (path, file.parent()) {
        ("", _) => file.to_path_buf(),
        (path, Some(directory)) => directory.join(path),
        (path, None) => PathBuf::from(path),
    };
    if !repository::root().join(&to).exists() {
        bail!("there is no such file");
    }
    if !heading.is_empty()
        && to.extension().is_some_and(|extension| extension == "md")
        && !headings(&read(&to)?).iter().any(|slug| slug == heading)
    {
        bail!("there is no such heading");
    }
    Ok(())
}

/// The lines outside code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(move |(_, line)| {
            let is_fence = line.trim_start().starts_with("```");
            in_code ^= is_fence;
            !in_code && !is_fence
        })
}

/// The targets of all links `[text](target)` and definitions `[name]: target`, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for after in line.split("](").skip(1) {
            let end = after.find([')', ' ']).unwrap_or(after.len());
            links.push((number, after.chars().take(end).collect()));
        }
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
            && !name.starts_with("[^")
        {
            links.push((number, target.trim().to_owned()));
        }
    }
    links
}

/// A line without its `code`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The names by which headings can be linked to, made as the common renderers do.
fn headings(text: &str) -> Vec<String> {
    let mut slugs: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let repeated = slugs
            .iter()
            .filter(|known| **known == slug || known.starts_with(&format!("{slug}-")))
            .count();
        if slugs.contains(&slug) {
            slugs.push(format!("{slug}-{repeated}"));
        } else {
            slugs.push(slug);
        }
    }
    slugs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_only() {
        let text = "a [b](c.md#d) and [e](f \"title\")\n```\n[g](h)\n```\n`[i](j)`\n[k]: l.md\n";
        let targets: Vec<_> = links(text);
        assert_eq!(
            targets,
            [(1, "c.md#d".into()), (1, "f".into()), (6, "l.md".into())]
        );
    }

    #[test]
    fn headings_are_named_as_renderers_name_them() {
        let text = "# Ports & `rules`: why?\n## How\n## How\n#no heading\n";
        assert_eq!(headings(text), ["ports--rules-why", "how", "how-1"]);
    }
}
