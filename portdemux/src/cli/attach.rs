//! `portdemux attach`: put the program on interfaces.

mod waiting;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use portdemux_common::state::Mode;

use super::{
    Context, boot,
    output::{self, Progress},
    report,
    safeguard::{self, Safeguard, Verb},
};
use crate::{
    change::{
        self,
        transaction::{self, Feature},
    },
    dataplane::{
        destinations,
        links::{self, Attachment, Wish},
        mapped::catching,
        redirect_drops, steering,
        trusted::is_there,
    },
    error::{Help as _, Unavailable},
    follower,
    instance::{Instance, Writer},
    interface::{self, Changes, Interface},
    rules::{Attach, AttachMode},
    session::Hook,
};

/// Put the program on interfaces
///
/// Counting begins at once, and rules hold from the first packet. On an interface where it already
/// runs, the program is replaced by this binary's without a packet going past it; rules and counters
/// stay. Without IFACE it takes the interfaces that [attach] names: of the rules file, or of the rules in force.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux attach eth0
  portdemux attach eth0 eth1 --rules /etc/portdemux/default.toml
  portdemux attach --rules rules.toml    the interfaces in its [attach]
  portdemux attach                       those in [attach] of the rules in force
  portdemux attach eth0 --mode native    fail rather than run in generic mode")]
pub(super) struct Args {
    /// Interfaces to attach to
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Where the program runs: in the driver (native), in the network stack (generic), or in the
    /// driver if it can (auto); left out: what [attach] says, else auto
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// A rules file to apply before the program is attached
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Stay, and attach to interfaces as they come that are not there yet or are made anew
    #[arg(long)]
    wait: bool,
    /// Treat the rules file as the one for boot: while rules are in force, apply it only if it was changed
    /// since it was last applied. If it has a mistake, the rules in force stay; if none are in force, the
    /// rules that were last in force from this file hold
    #[arg(long, requires = "rules")]
    boot: bool,
    #[command(flatten)]
    strictness: report::Strictness,
    #[command(flatten)]
    safeguard: safeguard::Force,
}

impl Args {
    /// Whether it stays.
    pub(super) const fn waits(&self) -> bool {
        self.wait
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Auto,
    Native,
    Generic,
}

impl From<ModeArg> for AttachMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Native => Self::Native,
            ModeArg::Generic => Self::Generic,
        }
    }
}

/// What takes most of the time.
pub(super) const VERIFYING: &str = "the kernel verifies the programs …";

/// To which interfaces, and how.
#[derive(Debug)]
struct Wanted {
    names: Vec<String>,
    wish: Wish,
    /// Whether those that are not there may come later.
    may_come: bool,
}

/// Neither the command line nor the rules name an interface.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no interface is named: {0}")]
struct NoInterface(&'static str);

impl Wanted {
    /// What the command line says; what that leaves open, the rules say.
    fn new(args: &Args, said: &Attach, context: &Context) -> Result<Self> {
        let names = if args.interfaces.is_empty() {
            &said.interfaces
        } else {
            &args.interfaces
        };
        if names.is_empty() {
            return Err(NoInterface("the rules have no [attach]")).help(|| {
                format!(
                    "write interface = \"eth0\" under [attach] in the rules file, or: {} attach eth0; nothing was \
                     changed",
                    context.command()
                )
            });
        }
        Ok(Self {
            names: names.clone(),
            wish: match args.mode.map_or(said.mode, AttachMode::from) {
                AttachMode::Auto => Wish::Auto,
                AttachMode::Native => Wish::Native,
                AttachMode::Generic => Wish::Generic,
            },
            may_come: args.wait,
        })
    }

    /// Those of them that are there.
    ///
    /// # Errors
    ///
    /// One is missing that may not come later.
    fn find(&self) -> Result<Vec<Interface>> {
        let known = interface::list()?;
        let mut found: Vec<Interface> = Vec::new();
        for name in &self.names {
            match known.iter().find(|interface| interface.name == *name) {
                Some(interface) if found.iter().all(|other| other.index != interface.index) => {
                    found.push(interface.clone());
                }
                Some(_) => {}
                None if self.may_come => {}
                None => {
                    let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
                    return Err(anyhow!("no interface {name} in this network namespace"))
                        .help(|| format!("there are {}; nothing was changed", names.join(", ")));
                }
            }
        }
        Ok(found)
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    // Before it is looked, so that nothing that comes meanwhile is missed.
    let changes = args.wait.then(Changes::listen);
    let rules = args.rules.as_deref();
    let wanted = match rules {
        Some(file) if args.boot => take_at_boot(args, context, file)?,
        rules => take(args, context, rules)?,
    };
    match changes {
        Some(changes) => waiting::run(context, args, wanted, &changes),
        None => Ok(()),
    }
}

/// Puts the rules for boot in force, unless they were, and attaches. No interface is left open for a mistake in them,
/// and what was changed since is not lost because the unit was started anew.
fn take_at_boot(args: &Args, context: &Context, file: &Path) -> Result<Wanted> {
    if boot::was_in_force(context, file) && has_rules(context)? {
        return take(args, context, None);
    }
    let error = match take(args, context, Some(file)) {
        Err(error) => error,
        taken => return taken,
    };
    let last = context.last_file();
    let (rules, hold) = if has_rules(context)? {
        (None, "the rules in force stay")
    } else if is_there(&last)? {
        (
            Some(last.as_path()),
            "the rules hold that were in force last",
        )
    } else {
        output::fail(&error);
        return Err(anyhow!(
            "no rules were kept from before: nothing was attached"
        ))
        .help(|| format!("mend {}, then attach again", file.display()));
    };
    let names_none = error.is::<NoInterface>();
    if !names_none {
        output::fail(&error);
    }
    let taken = take(args, context, rules);
    // One mistake in both is told of once.
    let again = taken.as_ref().err();
    let is_told_below = again.is_some_and(anyhow::Error::is::<NoInterface>);
    if names_none && !is_told_below {
        output::fail(&error);
    }
    let wanted = taken?;
    let file = file.display();
    output::warn(
        format!("{file} was not put in force: {hold}"),
        Some(&format!(
            "mend it, then: {} apply {file}",
            context.command()
        )),
    );
    Ok(wanted)
}

/// Whether rules are in force.
fn has_rules(context: &Context) -> Result<bool> {
    if !context.places.exists()? {
        return Ok(false);
    }
    // One that an older version made is taken over first.
    let (writer, _) = context.open_or_create()?;
    Ok(writer.maps.generation().0 != 0)
}

/// Puts rules in force and attaches to the interfaces that are there; says which are wanted.
fn take(args: &Args, context: &Context, rules: Option<&Path>) -> Result<Wanted> {
    let request = rules
        .map(|path| report::read_rules_to_apply(path, args.strictness))
        .transpose()?;
    let said = match &request {
        // What is wrong with the rules is said before anything else is.
        Some(rules) if args.interfaces.is_empty() || args.mode.is_none() => rules.attach()?,
        None if args.interfaces.is_empty() => {
            let places = &context.places;
            if !places.exists()? {
                return Err(places.nothing_loaded());
            }
            // One that an older version made is taken over first.
            let (writer, _) = context.open_or_create()?;
            let in_force = Context::in_force(&writer)?;
            if in_force.generation.0 == 0 {
                return Err(NoInterface("no rules are in force")).help(|| {
                    let command = context.command();
                    format!("{command} attach IFACE; nothing was changed")
                });
            }
            in_force.ruleset.attach().clone()
        }
        Some(_) | None => Attach::default(),
    };
    let wanted = Wanted::new(args, &said, context)?;
    wanted.find()?;
    links::check_capabilities()?;

    let (writer, is_new) = context.open_or_create()?;
    let safeguard = Safeguard::new(Verb::Attach, args.safeguard.into(), false);
    // Another writer may have come first, or what was left of a removed instance be gone.
    let result = catching(|| {
        attach_all(
            context,
            &writer,
            &wanted.find()?,
            &wanted,
            request.as_ref(),
            &safeguard,
        )
    });
    if result.is_err() && is_new {
        // Nothing was there before, nothing stays.
        writer.lock().remove()?;
    }
    result?;
    drop(writer);
    Ok(wanted)
}

fn attach_all(
    context: &Context,
    writer: &Writer,
    interfaces: &[Interface],
    wanted: &Wanted,
    request: Option<&report::RulesText>,
    safeguard: &Safeguard,
) -> Result<()> {
    let _progress = Progress::of(VERIFYING);
    let netns = interface::namespace()?;
    let joining = interfaces.iter().map(|interface| Hook {
        netns,
        index: interface.index,
    });
    let joining: Vec<Hook> = joining.collect();
    let check = |new: &_| safeguard.check(writer, &joining, new);
    // Those that may come later are attached one by one, what there is first.
    let interfaces = if wanted.may_come { &[] } else { interfaces };
    let mut attaching = Interfaces {
        context,
        writer,
        all: interfaces,
        wanted,
        fresh: Vec::new(),
    };
    let change = if let Some(rules) = request {
        let request = rules.request(false, None);
        let old = || Some(Context::in_force(writer).ok()?.ruleset);
        Some(change::change_and(
            writer,
            old,
            request,
            check,
            &mut attaching,
        )?)
    } else {
        // The rules that are in force hold on these interfaces from then on, and their text has to be there.
        Context::in_force(writer)?;
        check(&writer.maps.compiled())?;
        transaction::run(&mut [&mut attaching], &mut Unavailable::Refused)?;
        None
    };
    renew(context, writer);
    if let Some(rules) = request {
        boot::keep(context, rules.source.as_deref(), &rules.text);
    }
    match change {
        Some(mut change) => {
            // Some of what is to be known depends on where the program runs; by now nothing depends on it.
            let warnings = catching(|| destinations::warnings(writer, change.plan.new_ruleset()));
            for warning in warnings.unwrap_or_default() {
                if !change.warnings.contains(&warning) {
                    change.warnings.push(warning);
                }
            }
            report::change(context, &change);
            report::warn_of_ended_members(&change);
        }
        None if writer.maps.generation().0 == 0 => context.output.line(format!(
            "No rules: all that is well-formed passes and is counted. Next: {} stats --watch",
            context.command()
        )),
        None => context.output.line(format!(
            "The rules of generation {} hold, counters kept",
            writer.maps.generation().0
        )),
    }
    Ok(())
}

/// Lets what stands beside the programs know of interfaces that were attached: they are, whether that can be had or
/// not.
fn renew(context: &Context, writer: &Writer) {
    if let Err(error) = catching(|| steering::refresh(writer)) {
        output::warn_of("the programs for sockets are those from before", &error);
    }
    if let Err(error) = catching(|| redirect_drops::refresh(writer)) {
        output::warn_of(
            "the programs that count losses are those from before",
            &error,
        );
    }
    // A change began without these interfaces.
    follow(context, writer);
}

/// Starts the process that finds again what was gone, where the rules need one on these interfaces.
fn follow(context: &Context, instance: &Instance) {
    let started = catching(|| {
        let in_force = change::in_force(instance)?;
        follower::start_if_needed(instance, &in_force.ruleset)
    });
    if let Err(error) = started {
        output::warn(
            format!("{error:#}"),
            Some(&format!("{} follow", context.command())),
        );
    }
}

/// Interfaces that get the program together, or none of those that had none before.
struct Interfaces<'a> {
    context: &'a Context,
    writer: &'a Writer,
    all: &'a [Interface],
    wanted: &'a Wanted,
    /// Those that had no program before.
    fresh: Vec<&'a Interface>,
}

impl Feature for Interfaces<'_> {
    fn commit(&mut self) -> Result<()> {
        let netns = interface::namespace()?;
        for interface in self.all {
            let attachment = links::attach(self.writer, interface, netns, self.wanted.wish)?;
            say(self.context, interface, &attachment);
            if matches!(attachment, Attachment::Attached { .. }) {
                self.fresh.push(interface);
            }
            warn_of_blind_spots(interface, &attachment, self.wanted.may_come);
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        for interface in &self.fresh {
            if let Err(error) = catching(|| detach_again(self.context, self.writer, interface)) {
                output::warn_of(format!("{} stays attached", interface.name), &error);
            }
        }
        Ok(())
    }
}

/// Attaches to every interface, or to none that had no program before.
fn attach_each(
    context: &Context,
    writer: &Writer,
    interfaces: &[Interface],
    wanted: &Wanted,
) -> Result<()> {
    let mut interfaces = Interfaces {
        context,
        writer,
        all: interfaces,
        wanted,
        fresh: Vec::new(),
    };
    transaction::run(&mut [&mut interfaces], &mut Unavailable::Refused).map(drop)
}

/// Takes the program off an interface that this command had put it on.
fn detach_again(context: &Context, writer: &Writer, interface: &Interface) -> Result<()> {
    let netns = interface::namespace()?;
    let mut known = writer.maps.interfaces().into_iter();
    let place = known.find(|(_, known)| known.netns == netns && known.index == interface.index);
    if let Some((place, _)) = place {
        steering::guard_without(writer, &[place])?;
        links::detach(writer, place)?;
        context
            .output
            .line(format!("{}  detached again", interface.name));
    }
    Ok(())
}

fn say(context: &Context, interface: &Interface, attachment: &Attachment) {
    let (verb, mode) = match attachment {
        Attachment::Attached { mode, .. } => ("attached", *mode),
        Attachment::Replaced { mode } => ("program replaced", *mode),
    };
    let driver = interface
        .driver
        .as_ref()
        .map(|driver| format!(" ({driver})"))
        .unwrap_or_default();
    let name = &interface.name;
    context.output.line(format!(
        "{name}  {verb}  xdp {}{driver}",
        links::mode_name(mode)
    ));
}

/// Warns about everything that would make counters and rules see less than there is.
///
/// One that came only now is not up yet.
fn warn_of_blind_spots(interface: &Interface, attachment: &Attachment, may_be_down: bool) {
    let name = &interface.name;
    if let Attachment::Attached {
        mode: Mode::Generic,
        refused: Some(why),
    } = attachment
    {
        let mtu = if interface.mtu > 1500 {
            format!(" (MTU {})", interface.mtu)
        } else {
            String::new()
        };
        output::warn(
            format!(
                "{name} does not take the program in the driver{mtu}: {why}; generic mode is slower"
            ),
            Some("attach with --mode native to fail instead"),
        );
    }
    if !interface.is_up && !may_be_down {
        output::warn(
            format!("{name} is down"),
            Some(&format!("ip link set {name} up")),
        );
    }
    let Ok(offloads) = interface::offloads(name) else {
        output::warn(
            format!("cannot see which offloads {name} has: VLAN tags may be hidden"),
            None,
        );
        return;
    };
    if offloads.strips_vlan {
        output::warn(
            format!(
                "{name} strips VLAN tags in hardware (rxvlan on), so rules cannot see tagged traffic"
            ),
            Some(&format!("ethtool -K {name} rxvlan off")),
        );
    }
    if offloads.large_receive {
        output::warn(
            format!("{name} joins TCP segments before they are counted (lro on)"),
            Some(&format!("ethtool -K {name} lro off")),
        );
    }
    if offloads.hardware_gro {
        output::warn(
            format!("{name} joins packets before they are counted (rx-gro-hw on)"),
            Some(&format!("ethtool -K {name} rx-gro-hw off")),
        );
    }
}
