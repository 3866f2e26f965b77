//! Manual pages.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;

/// What stands at the end of the page of `portdemux` itself.
const WHERE: &str = "\
.SH FILES
.TP
.I /etc/portdemux/INSTANCE.toml
The rules that hold from boot on, with the unit portdemux@INSTANCE.service.
.TP
.I /sys/fs/bpf/portdemux/INSTANCE
The maps and programs of an instance.
.TP
.I /run/portdemux/INSTANCE
The text of the rules in force.
.TP
.I /var/lib/portdemux/INSTANCE.toml
What was last in force from the file for boot.
.SH ENVIRONMENT
.TP
.B NO_COLOR
Turns colour off.
.TP
.B PORTDEMUX_BPFFS, PORTDEMUX_STATE_DIR, PORTDEMUX_CONFIG_DIR, PORTDEMUX_KEPT_DIR
Other directories than /sys/fs/bpf, /run/portdemux, /etc/portdemux and /var/lib/portdemux.
";

/// A page for the command and for each of its verbs and nouns, by name.
///
/// # Errors
///
/// One is no text.
pub(crate) fn pages(command: Command) -> Result<Vec<(String, String)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    if let Some((_, first)) = pages.first_mut() {
        first.push_str(WHERE);
    }
    Ok(pages)
}

fn collect(command: &Command, pages: &mut Vec<(String, String)>) -> Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push((name.to_owned(), page(command)?));
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        collect(below, pages)?;
    }
    Ok(())
}

fn page(command: &Command) -> Result<String> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8(page).context("a page is no text")?;
    if let Some(rest) = command.get_after_help() {
        page.push_str(&sections(&rest.to_string()));
    }
    Ok(page)
}

/// What stands behind the options: examples under a line that ends in a colon, and paragraphs.
fn sections(text: &str) -> String {
    let mut page = String::new();
    for block in text.split("\n\n") {
        let (head, rest) = block.split_once('\n').unwrap_or((block, ""));
        match head
            .strip_suffix(':')
            .or_else(|| head.split_once(": ").map(|(head, _)| head))
        {
            Some(head) if head.starts_with("Example") => {
                let _ = writeln!(page, ".SH EXAMPLES");
                if let Some((_, about)) = block.lines().next().unwrap_or_default().split_once(": ")
                {
                    let _ = writeln!(page, "{}", escaped(about));
                }
                let _ = writeln!(page, ".nf");
                for line in rest.lines() {
                    let _ = writeln!(page, "{}", escaped(line));
                }
                let _ = writeln!(page, ".fi");
            }
            Some(head) => {
                let body = block.get(head.len() + 1..).unwrap_or_default();
                let _ = writeln!(
                    page,
                    ".SH {}\n{}",
                    head.to_uppercase(),
                    escaped(body.trim())
                );
            }
            None => {
                let _ = writeln!(page, ".PP\n{}", escaped(block));
            }
        }
    }
    page
}

/// As roff takes it: a backslash begins a command, and so does a dot or a quote at the start of a line.
fn escaped(text: &str) -> String {
    let mut escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        escaped.insert_str(0, "\\&");
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_noun_has_a_page_with_its_examples_as_they_stand() {
        let pages = pages(portdemux::cli::command()).unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(known, _)| known == name);
            &found.unwrap_or_else(|| panic!("no page {name}")).1
        };
        assert_eq!(pages[0].0, "portdemux");
        let (root, attach) = (page("portdemux"), page("portdemux-attach"));
        for said in [
            "portdemux\\-attach(1)",
            ".SH EXIT STATUS\n0 done",
            ".SH FILES",
        ] {
            assert!(root.contains(said), "{said}: {root}");
        }
        for said in [
            ".TH portdemux-attach 1",
            "\n  portdemux attach eth0\n",
            "\\-\\-rules",
        ] {
            assert!(attach.contains(said), "{said}: {attach}");
        }
        // Of `set add` they stand with `set`, as in its help.
        assert!(page("portdemux-set-add").contains(".TH portdemux-set-add 1"));
        for name in ["portdemux-set", "portdemux-explain", "portdemux-status"] {
            assert!(page(name).contains(".SH EXAMPLES"), "{name}");
        }
        assert!(pages.iter().all(|(name, _)| name != "portdemux-guard"));
    }
}
