//! What `--help` says, and that its examples are right.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{cli::Portdemux, netns::Netns, require};

const VERBS: [&str; 13] = [
    "attach", "detach", "apply", "add", "remove", "set", "promote", "confirm", "upgrade", "export",
    "save", "socket", "follow",
];
const NOUNS: [&str; 6] = ["status", "rules", "stats", "flows", "listeners", "explain"];

/// The command lines of portdemux among the examples of a help text, without what stands around them:
/// other programs in the pipe, redirections, and the words that say what a line does.
fn examples(help: &str) -> Result<Vec<Vec<String>>> {
    let (_, examples) = help.split_once("\nExample").context("no example")?;
    let lines = examples.lines().skip(1);
    let lines = lines.take_while(|line| line.starts_with("  "));
    let commands = lines.flat_map(|line| {
        let line = line.trim_start();
        let line = line.split_once("  ").map_or(line, |(line, _)| line);
        line.split(" | ")
            .map(|command| command.split(" > ").next().unwrap_or(command))
            .map(|command| command.trim_start_matches("sudo ").to_owned())
            .collect::<Vec<_>>()
    });
    let words = commands.filter_map(|command| {
        let words = command.strip_prefix("portdemux ")?;
        Some(words.split(' ').map(str::to_owned).collect())
    });
    Ok(words.collect())
}

#[test]
fn the_help_of_every_verb_and_noun_has_examples_that_are_understood() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    // Nothing is loaded here, and there is no interface to load it on.
    let namespace = Netns::new("empty")?;
    let portdemux = Portdemux::new(&namespace)?;
    let help = |words: &[&str]| -> Result<String> {
        let output = portdemux.ok(words)?;
        ensure!(output.stderr.is_empty(), "{words:?}: {}", output.stderr);
        let text = output.stdout;
        ensure!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        Ok(text)
    };
    let all = help(&["--help"])?;
    ensure!(all.contains("Exit status: 0 done, 1 failed, 2 wrong usage, 3 nothing is loaded."));
    let mut texts = vec![("", all.clone())];
    for command in [&VERBS[..], &NOUNS].concat() {
        ensure!(all.contains(&format!("\n  {command} ")), "{command}: {all}");
        for flag in ["--help", "-h"] {
            texts.push((command, help(&[command, flag])?));
        }
    }
    for (command, text) in texts {
        // Neither a user's name for none, nor a process of our own.
        for word in ["nobody", "guard"] {
            ensure!(!text.contains(word), "{word}: {text}");
        }
        // An example that is wrapped on a terminal cannot be copied from it.
        let (_, shown) = text.split_once("\nExample").context("no example")?;
        let widest = shown.lines().map(|line| line.chars().count()).max();
        ensure!(widest <= Some(80), "{widest:?}: {shown}");
        let examples = examples(&text).with_context(|| text.clone())?;
        let is_shown = |words: &Vec<String>| words.contains(&command.to_owned());
        ensure!(
            command.is_empty() || examples.iter().any(is_shown),
            "{text}"
        );
        for words in examples {
            let output = portdemux.run(&words)?;
            // Who listens is told without an instance.
            let listens = words.first().is_some_and(|word| word == "listeners");
            // A rule for a socket makes the instance that it needs.
            let makes = words.iter().any(|word| word.starts_with("socket:"));
            // Of no instance, every one can be removed.
            let removes = words.contains(&"--all-instances".to_owned());
            // Where nothing is loaded nothing has to be upgraded.
            let upgrades = words.first().is_some_and(|word| word == "upgrade");
            let succeeds = listens || makes || removes || upgrades;
            ensure!(
                matches!(
                    (output.code(), succeeds),
                    (Some(1 | 3), false) | (Some(0), true)
                ),
                "{}: {}\n{}",
                output.command,
                output.status,
                output.stderr
            );
            ensure!(!output.stderr.contains("panicked"), "{}", output.stderr);
            if makes {
                portdemux.ok(&["detach", "--all"])?;
            }
        }
    }
    Ok(())
}

#[test]
fn examples_are_found_among_what_stands_around_them() -> Result<()> {
    let help = "Usage: it\n\nExamples:\n  sudo portdemux a --b    which does it\n  x -w - | portdemux c - | y\n  \
                portdemux d > file\n\nThe end.\n  portdemux e\n";
    assert_eq!(
        examples(help)?,
        [vec!["a", "--b"], vec!["c", "-"], vec!["d"]]
    );
    Ok(())
}

#[test]
fn every_noun_can_be_read_by_programs() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let namespace = Netns::new("empty")?;
    let portdemux = Portdemux::new(&namespace)?;
    for noun in NOUNS {
        let help = portdemux.ok(&[noun, "--help"])?.stdout;
        ensure!(
            help.contains("  --json  ") || help.contains("  --json\n"),
            "{help}"
        );
    }
    let version = portdemux.ok(&["--version"])?.stdout;
    assert_eq!(
        version,
        format!("portdemux {}\n", env!("CARGO_PKG_VERSION"))
    );
    Ok(())
}
