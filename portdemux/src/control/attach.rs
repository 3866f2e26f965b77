//! The program is put on interfaces.

use std::path::Path;

use anyhow::{Result, anyhow};
use portdemux_common::{ids::Generation, state::Mode};

use super::{Check, Control, Event, RulesText};
use crate::{
    background::follower,
    change::{
        self, Change,
        transaction::{self, Feature},
    },
    dataplane::{
        destinations,
        links::{self, Attachment, Wish},
        redirect_drops, steering,
    },
    error::{Help as _, Unavailable},
    instance::{Instance, Writer},
    interface::{self, Interface},
    maps::{mapped::catching, trusted::is_there},
    rules::{Attach, AttachMode},
    session::Hook,
};

/// To which interfaces, and how, as far as the rules are not to say it.
#[derive(Clone, Debug, Default)]
pub struct To {
    /// Their names; none if the rules name them.
    pub interfaces: Vec<String>,
    /// Where the program runs; none if the rules say it.
    pub mode: Option<AttachMode>,
    /// Whether those that are not there may come later: then none is attached yet.
    pub may_come: bool,
}

/// To which interfaces, and how.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// Their names.
    pub names: Vec<String>,
    wish: Wish,
    may_come: bool,
}

/// An interface that has the program.
#[derive(Debug)]
pub struct AttachedTo {
    /// The interface.
    pub interface: Interface,
    /// How it came to have it.
    pub attachment: Attachment,
}

/// What came of it.
#[derive(Debug)]
pub struct Joined {
    /// What was wanted.
    pub wanted: AttachRequest,
    /// The change of rules, if some were given.
    pub change: Option<Change>,
    /// The generation in force.
    pub generation: Generation,
    /// What is to be known besides.
    pub besides: Option<Event>,
}

/// Neither the caller nor the rules name an interface.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no interface is named: {0}")]
struct NoInterface(&'static str);

impl AttachRequest {
    /// What is asked for; what that leaves open, the rules say.
    ///
    /// # Errors
    ///
    /// Nothing names an interface.
    pub(crate) fn new(to: &To, said: &Attach, control: &Control) -> Result<Self> {
        let names = if to.interfaces.is_empty() {
            &said.interfaces
        } else {
            &to.interfaces
        };
        if names.is_empty() {
            return Err(NoInterface("the rules have no [attach]")).help(|| {
                format!(
                    "write interface = \"eth0\" under [attach] in the rules file, or: {} attach eth0; nothing was \
                     changed",
                    control.command()
                )
            });
        }
        Ok(Self {
            names: names.clone(),
            wish: match to.mode.unwrap_or(said.mode) {
                AttachMode::Auto => Wish::Auto,
                AttachMode::Native => Wish::Native,
                AttachMode::Generic => Wish::Generic,
            },
            may_come: to.may_come,
        })
    }

    /// Those of them that are there.
    ///
    /// # Errors
    ///
    /// One is missing that may not come later.
    pub(crate) fn find(&self) -> Result<Vec<Interface>> {
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

impl Control {
    /// Puts rules in force, if some are given, and the program on interfaces: all of it, or nothing. An instance is made
    /// where there is none.
    ///
    /// # Errors
    ///
    /// An interface is missing, one cannot have the program, or as [`Self::apply`]; nothing was changed.
    pub fn attach(&self, to: &To, rules: Option<&RulesText>, check: Check<'_>) -> Result<Joined> {
        let said = match rules {
            // What is wrong with the rules is said before anything else is.
            Some(rules) if to.interfaces.is_empty() || to.mode.is_none() => rules.attach()?,
            None if to.interfaces.is_empty() => self.attach_in_force()?,
            Some(_) | None => Attach::default(),
        };
        let wanted = AttachRequest::new(to, &said, self)?;
        wanted.find()?;
        links::check_capabilities()?;

        let (writer, is_new) = self.open_or_create()?;
        // Another writer may have come first, or what was left of a removed instance be gone.
        let result = catching(|| self.attach_all(&writer, &wanted, rules, check));
        if result.is_err() && is_new {
            // Nothing was there before, nothing stays.
            writer.lock().remove()?;
        }
        Ok(Joined {
            change: result?,
            generation: writer.maps.generation(),
            wanted,
            besides: None,
        })
    }

    /// Puts the rules for boot in force, unless they were, and attaches. No interface is left open for a mistake in
    /// them, and what was changed since is not lost because the unit was started anew.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`], and no other rules are there to hold.
    pub fn attach_at_boot(
        &self,
        to: &To,
        file: &Path,
        skip_expired: bool,
        check: Check<'_>,
    ) -> Result<Joined> {
        let attach = |file: Option<&Path>| {
            let rules = file.map(|file| RulesText::to_apply(file, skip_expired));
            self.attach(to, rules.transpose()?.as_ref(), check)
        };
        if self.was_in_force(file) && self.has_rules()? {
            return attach(None);
        }
        let error = match attach(Some(file)) {
            Err(error) => error,
            taken => return taken,
        };
        let last = self.last_file();
        let (rules, hold) = if self.has_rules()? {
            (None, "the rules in force stay")
        } else if is_there(&last)? {
            (
                Some(last.as_path()),
                "the rules hold that were in force last",
            )
        } else {
            self.events.tell(Event::Failed(error));
            return Err(anyhow!(
                "no rules were kept from before: nothing was attached"
            ))
            .help(|| format!("mend {}, then attach again", file.display()));
        };
        // One mistake in both is told of once.
        let mut told = Some(error);
        if let Some(error) = told.take_if(|error| !error.is::<NoInterface>()) {
            self.events.tell(Event::Failed(error));
        }
        let taken = attach(rules);
        let is_told_below = taken.as_ref().is_err_and(anyhow::Error::is::<NoInterface>);
        if let Some(error) = told.filter(|_| !is_told_below) {
            self.events.tell(Event::Failed(error));
        }
        let file = file.display();
        Ok(Joined {
            besides: Some(Event::Warning {
                what: format!("{file} was not put in force: {hold}"),
                help: Some(format!("mend it, then: {} apply {file}", self.command())),
            }),
            ..taken?
        })
    }

    /// Whether rules are in force.
    fn has_rules(&self) -> Result<bool> {
        if !self.paths.exists()? {
            return Ok(false);
        }
        // One that an older version made is taken over first.
        let (writer, _) = self.open_or_create()?;
        Ok(writer.maps.generation().0 != 0)
    }

    /// Where the rules in force say that they are attached.
    fn attach_in_force(&self) -> Result<Attach> {
        if !self.paths.exists()? {
            return Err(self.paths.nothing_loaded());
        }
        // One that an older version made is taken over first.
        let (writer, _) = self.open_or_create()?;
        let in_force = self.in_force(&writer)?;
        if in_force.generation.0 == 0 {
            return Err(NoInterface("no rules are in force"))
                .help(|| format!("{} attach IFACE; nothing was changed", self.command()));
        }
        Ok(in_force.ruleset.attach().clone())
    }

    fn attach_all(
        &self,
        writer: &Writer,
        wanted: &AttachRequest,
        rules: Option<&RulesText>,
        check: Check<'_>,
    ) -> Result<Option<Change>> {
        let _verifying = self.events.verifying();
        let found = wanted.find()?;
        let netns = interface::namespace()?;
        let joining = found.iter().map(|interface| Hook {
            netns,
            index: interface.index,
        });
        let joining: Vec<Hook> = joining.collect();
        let check = |new: &_| check(writer, &joining, new);
        // Those that may come later are attached one by one, what there is first.
        let interfaces = if wanted.may_come { &[] } else { &found[..] };
        let mut interfaces = Interfaces::new(self, writer, interfaces, wanted);
        let Some(rules) = rules else {
            // The rules that are in force hold on these interfaces from then on, and their text has to be there.
            self.in_force(writer)?;
            check(&writer.maps.compiled())?;
            transaction::run(&mut [&mut interfaces], &mut Unavailable::Refused)?;
            self.renew(writer);
            return Ok(None);
        };
        let request = rules.request(false, None);
        let old = || Some(self.in_force(writer).ok()?.ruleset);
        let mut change = change::change_and(writer, old, request, check, &mut interfaces)?;
        self.renew(writer);
        if let Some(warning) = self.keep(rules.source.as_deref(), &rules.text) {
            self.events.tell(warning);
        }
        // Some of what is to be known depends on where the program runs; by now nothing depends on it.
        let warnings = catching(|| destinations::warnings(writer, change.plan.new_ruleset()));
        for warning in warnings.unwrap_or_default() {
            if !change.warnings.contains(&warning) {
                change.warnings.push(warning);
            }
        }
        Ok(Some(change))
    }

    /// Attaches to every interface, or to none that had no program before.
    ///
    /// # Errors
    ///
    /// One cannot have the program.
    pub(crate) fn attach_each(
        &self,
        writer: &Writer,
        all: &[Interface],
        wanted: &AttachRequest,
    ) -> Result<()> {
        let mut interfaces = Interfaces::new(self, writer, all, wanted);
        transaction::run(&mut [&mut interfaces], &mut Unavailable::Refused).map(drop)
    }

    /// Lets what stands beside the programs know of interfaces that were attached: they are, whether that can be had
    /// or not.
    pub(crate) fn renew(&self, writer: &Writer) {
        if let Err(error) = catching(|| steering::refresh(writer)) {
            let what = "the programs for sockets are those from before";
            self.events.warn_of(what, &error);
        }
        if let Err(error) = catching(|| redirect_drops::refresh(writer)) {
            let what = "the programs that count redirect drops are those from before";
            self.events.warn_of(what, &error);
        }
        // A change began without these interfaces.
        if let Err(error) = catching(|| follow(writer)) {
            let help = format!("{} follow", self.command());
            self.events.warn(format!("{error:#}"), Some(help));
        }
    }
}

/// Starts the process that finds again what was gone, where the rules need one on these interfaces.
fn follow(instance: &Instance) -> Result<()> {
    let in_force = change::in_force(instance)?;
    follower::start_if_needed(instance, &in_force.ruleset)
}

/// Interfaces that get the program together, or none of those that had none before.
struct Interfaces<'a> {
    control: &'a Control,
    writer: &'a Writer,
    all: &'a [Interface],
    wanted: &'a AttachRequest,
    /// Those that had no program before.
    fresh: Vec<&'a Interface>,
}

impl<'a> Interfaces<'a> {
    const fn new(
        control: &'a Control,
        writer: &'a Writer,
        all: &'a [Interface],
        wanted: &'a AttachRequest,
    ) -> Self {
        Self {
            control,
            writer,
            all,
            wanted,
            fresh: Vec::new(),
        }
    }

    /// Takes the program off an interface that had none before.
    fn detach(&self, interface: &Interface) -> Result<()> {
        let netns = interface::namespace()?;
        let mut known = self.writer.maps.interfaces().into_iter();
        let slot = known.find(|(_, known)| known.netns == netns && known.index == interface.index);
        if let Some((slot, _)) = slot {
            steering::guard_without(self.writer, &[slot])?;
            links::detach(self.writer, slot)?;
            let name = interface.name.clone();
            self.control.events.tell(Event::DetachedAgain(name));
        }
        Ok(())
    }

    /// Warns about everything that would make counters and rules see less than there is.
    fn warn_of_blind_spots(&self, interface: &Interface, attachment: &Attachment) {
        let events = &self.control.events;
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
            events.warn(
                format!(
                    "{name} does not take the program in the driver{mtu}: {why}; generic mode is slower"
                ),
                Some("attach with --mode native to fail instead".into()),
            );
        }
        // One that came only now is not up yet.
        if !interface.is_up && !self.wanted.may_come {
            events.warn(
                format!("{name} is down"),
                Some(format!("ip link set {name} up")),
            );
        }
        let Ok(offloads) = interface::offloads(name) else {
            let what = format!("cannot see which offloads {name} has: VLAN tags may be hidden");
            events.warn(what, None);
            return;
        };
        let hidden = [
            (
                offloads.strips_vlan,
                "strips VLAN tags in hardware (rxvlan on), so rules cannot see tagged traffic",
                "rxvlan",
            ),
            (
                offloads.large_receive,
                "joins TCP segments before they are counted (lro on)",
                "lro",
            ),
            (
                offloads.hardware_gro,
                "joins packets before they are counted (rx-gro-hw on)",
                "rx-gro-hw",
            ),
        ];
        for (_, what, offload) in hidden.into_iter().filter(|(is_on, ..)| *is_on) {
            let help = format!("ethtool -K {name} {offload} off");
            events.warn(format!("{name} {what}"), Some(help));
        }
    }
}

impl Feature for Interfaces<'_> {
    fn commit(&mut self) -> Result<()> {
        let netns = interface::namespace()?;
        for interface in self.all {
            let attachment = links::attach(self.writer, interface, netns, self.wanted.wish)?;
            if matches!(attachment, Attachment::Attached { .. }) {
                self.fresh.push(interface);
            }
            self.control.events.tell(Event::Attached(AttachedTo {
                interface: interface.clone(),
                attachment: attachment.clone(),
            }));
            self.warn_of_blind_spots(interface, &attachment);
        }
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        for interface in &self.fresh {
            if let Err(error) = catching(|| self.detach(interface)) {
                let what = format!("{} stays attached", interface.name);
                self.control.events.warn_of(what, &error);
            }
        }
        Ok(())
    }
}
