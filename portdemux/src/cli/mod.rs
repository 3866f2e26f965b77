//! The command line: one file for each verb or noun.
//!
//! Raw arguments (`Args`, made by clap) are turned into validated ones at the top of each `run`.
//! Verbs change something and say what; nouns read and print a table, or JSON for programs.

mod add;
mod apply;
mod attach;
mod confirm;
mod context;
mod counts;
mod detach;
mod explain;
mod export;
mod flows;
mod follow;
mod listeners;
pub mod output;
mod promote;
mod remove;
mod report;
mod rules;
mod safeguard;
mod save;
mod set;
mod socket;
mod stats;
mod status;
mod told;
mod upgrade;
mod values;
mod visible;

use std::{env, ffi::OsString, io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{
    CommandFactory as _, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use context::Context;
use output::Output;
use rustix::fs::Mode;
use values::{address, burst, destination, mac, port, queue, rate, source, with_help, word};

use crate::{
    background,
    confirm::guardian,
    control::{Control, Events},
    error::{Advice, NothingLoaded},
    instance::{InstanceName, InstancePaths, PATIENCE},
    maps::mapped::catching,
    memory,
    rules::nearest::nearest,
    unconfirmed,
};

/// How long it waits for another that takes the instance over: on an emulated machine that takes half a minute.
const TAKEOVER: Duration = Duration::from_mins(5);

/// Let in, drop, redirect and count packets by port, before the network stack sees them
#[derive(Debug, Parser)]
#[command(
    name = "portdemux",
    version,
    max_term_width = 100,
    after_help = "\
Example: see what comes to the ports of eth0
  sudo portdemux attach eth0
  sudo portdemux stats --watch
  sudo portdemux add 23/tcp --to drop
  sudo portdemux detach --all

Exit status: 0 done, 1 failed, 2 wrong usage, 3 nothing is loaded."
)]
struct Cli {
    #[command(flatten)]
    paths: Paths,
    #[command(subcommand)]
    command: Command,
}

/// The process that undoes what is not confirmed. It is started by `--confirm` and no verb for people, who are shown
/// every verb in messages.
#[derive(Debug, Parser)]
struct Guardian {
    #[arg(value_parser = [unconfirmed::GUARD])]
    verb: String,
    #[command(flatten)]
    paths: Paths,
}

/// Which instance, and where it lies.
#[derive(Debug, clap::Args)]
struct Paths {
    /// Which set of rules, counters and interfaces is meant
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    instance: InstanceName,
    /// Where bpffs is mounted
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "PORTDEMUX_BPFFS",
        default_value = "/sys/fs/bpf",
        hide = true
    )]
    bpffs: PathBuf,
    /// Where the texts of rulesets are kept
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "PORTDEMUX_STATE_DIR",
        default_value = "/run/portdemux",
        hide = true
    )]
    state_dir: PathBuf,
    /// Where rules files lie that are applied at boot
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "PORTDEMUX_CONFIG_DIR",
        default_value = "/etc/portdemux",
        hide = true
    )]
    config_dir: PathBuf,
    /// Where the rules are kept that were last in force from those files
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "PORTDEMUX_KEPT_DIR",
        default_value = "/var/lib/portdemux",
        hide = true
    )]
    kept_dir: PathBuf,
}

impl Paths {
    fn context(self, patience: Duration, output: Output) -> Context {
        let paths = InstancePaths::new(self.instance, self.bpffs, self.state_dir);
        memory::know_command(paths.command());
        let told = {
            let output = output.clone();
            move |event| told::tell(&output, event)
        };
        Context {
            control: Control {
                config: self.config_dir,
                kept: self.kept_dir,
                patience,
                ..Control::new(paths, Events::new(told))
            },
            output,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Attach(attach::Args),
    Detach(detach::Args),
    Apply(apply::Args),
    Add(add::Args),
    Remove(remove::Args),
    Set(set::Args),
    Promote(promote::Args),
    Confirm(confirm::Args),
    Upgrade(upgrade::Args),
    Export(export::Args),
    Save(save::Args),
    Status(status::Args),
    Rules(rules::Args),
    Stats(stats::Args),
    Flows(flows::Args),
    Listeners(listeners::Args),
    Socket(socket::Args),
    Follow(follow::Args),
    Explain(explain::Args),
}

impl Command {
    /// Whether it can change something.
    const fn is_verb(&self) -> bool {
        match self {
            Self::Attach(_)
            | Self::Detach(_)
            | Self::Apply(_)
            | Self::Add(_)
            | Self::Remove(_)
            | Self::Set(_)
            | Self::Promote(_)
            | Self::Confirm(_)
            | Self::Save(_)
            | Self::Upgrade(_)
            | Self::Flows(_)
            | Self::Socket(_) => true,
            Self::Export(_)
            | Self::Status(_)
            | Self::Rules(_)
            | Self::Stats(_)
            | Self::Listeners(_)
            | Self::Follow(_)
            | Self::Explain(_) => false,
        }
    }

    /// How long it waits for another that changes the instance. After an upgrade of the package, the script and the
    /// process of the unit both take the instance over, and the second waits for the first, however slow the machine.
    const fn patience(&self) -> Duration {
        let stays = matches!(self, Self::Attach(args) if args.waits());
        if stays || matches!(self, Self::Upgrade(_)) {
            TAKEOVER
        } else {
            PATIENCE
        }
    }

    fn run(&self, context: &Context) -> Result<()> {
        match self {
            Self::Attach(args) => attach::run(args, context),
            Self::Detach(args) => detach::run(args, context),
            Self::Apply(args) => apply::run(args, context),
            Self::Add(args) => add::run(args, context),
            Self::Remove(args) => remove::run(args, context),
            Self::Set(args) => set::run(args, context),
            Self::Promote(args) => promote::run(args, context),
            Self::Confirm(args) => confirm::run(args, context),
            Self::Upgrade(args) => upgrade::run(args, context),
            Self::Save(args) => save::run(args, context),
            Self::Export(args) => context.read(|context| export::run(args, context)),
            Self::Status(args) => context.read(|context| status::run(args, context)),
            Self::Rules(args) => context.read(|context| rules::run(args, context)),
            Self::Stats(args) if args.goes_on() => stats::run(args, context),
            Self::Stats(args) => context.read(|context| stats::run(args, context)),
            Self::Flows(args) => flows::run(args, context),
            Self::Listeners(args) => context.read(|context| listeners::run(args, context)),
            Self::Socket(args) => socket::run(args, context),
            Self::Follow(args) => follow::run(args, context),
            Self::Explain(args) => context.read(|context| explain::run(args, context)),
        }
    }
}

/// What `--help` says, for what is made of it: manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // What is kept of rules is nobody's business but this user's, and who may open a lock can hold it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    background::is_command();
    let output = Output::new();
    if let Ok(guardian) = Guardian::try_parse() {
        let context = guardian.paths.context(PATIENCE, output);
        return ended(catching(|| guardian::run(&context.paths)), &context.output);
    }
    run(env::args_os(), &output)
}

/// Runs a command line, its name first, and says what it has to say there. Returns with what the process ends.
pub fn run<W: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = W>,
    output: &Output,
) -> ExitCode {
    let Cli { paths, command } = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(said) => return usage(said, output),
    };
    let context = paths.context(command.patience(), output.clone());
    if command.is_verb() {
        output.hold();
    }
    let result = catching(|| command.run(&context));
    // By now its lock is free, and nothing that is said can keep others from anything.
    let written = output.release();
    let result = match (result, written) {
        (Ok(()), Err(error)) if command.is_verb() => {
            Err(unsaid(error).context(Advice(context.what_is_in_force())))
        }
        (Ok(()), Err(error)) => Err(unsaid(error)),
        (result, _) => result,
    };
    ended(result, output)
}

/// Says what went wrong, if anything did, and with what the process ends.
fn ended(result: Result<()>, output: &Output) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    output.fail(&error);
    if error.downcast_ref::<NothingLoaded>().is_some() {
        ExitCode::from(3)
    } else {
        ExitCode::FAILURE
    }
}

/// Says what clap has to say: help, or what is wrong with the arguments. Of values it compares less strictly than this
/// command does, and takes icmp for tcp.
fn usage(mut said: clap::Error, output: &Output) -> ExitCode {
    let text = |kind| match said.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        Some(_) | None => "",
    };
    let [wrong, near] = [ContextKind::InvalidValue, ContextKind::SuggestedValue].map(text);
    if nearest(wrong, &[near]).is_none() {
        said.remove(ContextKind::SuggestedValue);
    }
    output.say(&said);
    match output.release() {
        Err(error) => {
            output.fail(&unsaid(error));
            ExitCode::FAILURE
        }
        Ok(()) => u8::try_from(said.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

fn unsaid(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("write standard output")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{Arc, Mutex},
    };

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_follows_a_takeover_waits_longer() {
        let patience = |words: &[&str]| {
            let words = [&["portdemux"], words].concat();
            Cli::try_parse_from(words).unwrap().command.patience()
        };
        for words in [&["upgrade", "--all"][..], &["attach", "eth0", "--wait"]] {
            assert!(patience(words) > PATIENCE, "{words:?}");
        }
        assert_eq!(patience(&["attach", "eth0"]), PATIENCE);
    }

    /// What a command says to its caller's writers, and with what it ends.
    fn said(words: &[&str]) -> (ExitCode, String, String) {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let text =
            |written: &Written| String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let (output, error) = (Written::default(), Written::default());
        let words = [&["portdemux"], words].concat();
        let code = run(words, &Output::to(output.clone(), error.clone()));
        (code, text(&output), text(&error))
    }

    #[test]
    fn a_command_says_everything_to_the_writers_of_its_caller() {
        let rules = env::temp_dir().join(format!("portdemux-said-{}", std::process::id()));
        fs::write(
            &rules,
            "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nto = \"drop\"\n",
        )
        .unwrap();
        let file = rules.display().to_string();
        let packet = [
            "explain",
            "tcp",
            "192.0.2.7:50000",
            "192.0.2.1:80",
            "--rules",
        ];
        let (code, output, error) = said(&[&packet, &[file.as_str()][..]].concat());
        assert_eq!((code, error.as_str()), (ExitCode::SUCCESS, ""));
        assert!(
            output.contains("drop") && output.contains("web"),
            "{output}"
        );

        fs::write(&rules, "[[rule]]\nport = \"80/icmp\"\n").unwrap();
        let (code, output, error) = said(&[&packet, &[file.as_str()][..]].concat());
        assert_eq!((code, output.as_str()), (ExitCode::FAILURE, ""));
        assert!(error.contains("80/icmp"), "{error}");
        fs::remove_file(&rules).unwrap();

        let (code, output, error) = said(&["explain", "tcp"]);
        assert_eq!((code, output.as_str()), (ExitCode::from(2), ""));
        assert!(error.contains("Usage:"), "{error}");
        let (code, output, error) = said(&["--version"]);
        assert_eq!((code, error.as_str()), (ExitCode::SUCCESS, ""));
        assert!(output.starts_with("portdemux "), "{output}");
    }

    /// Clap looks for contradictions in debug builds only, and of a verb only once it is used.
    #[test]
    fn no_verb_contradicts_itself() {
        Cli::command().debug_assert();
    }
}
