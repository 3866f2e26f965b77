//! What happens while a command works, as it is printed.

use portdemux_common::ABI;

use super::output::{Output, progress};
use crate::{
    control::{Event, attach::AttachedTo},
    dataplane::links::{self, Attachment},
    figures::grouped,
    instance::InstanceName,
    interface::Interface,
    upgrade::Upgraded,
};

/// Says what happens meanwhile.
pub(super) fn tell(output: &Output, event: Event) {
    match event {
        Event::Warning { what, help } => output.warn(what, help.as_deref()),
        Event::Note(what) => output.note(what),
        Event::Failed(error) => output.fail(&error),
        Event::Verifying => progress::begin("the kernel verifies the programs …"),
        Event::Verified => progress::end(),
        Event::Attached(attached) => attached_to(output, &attached),
        Event::Detached(name) => output.line(format!("{name}  detached")),
        Event::DetachedAgain(name) => output.line(format!("{name}  detached again")),
        Event::Upgraded(instance, upgraded) => upgraded_to(output, &instance, &upgraded),
    }
}

/// Says that an interface has the program.
fn attached_to(output: &Output, attached: &AttachedTo) {
    let (verb, mode) = match attached.attachment {
        Attachment::Attached { mode, .. } => ("attached", mode),
        Attachment::Replaced { mode } => ("program replaced", mode),
    };
    let Interface { name, driver, .. } = &attached.interface;
    let driver = driver
        .as_ref()
        .map(|driver| format!(" ({driver})"))
        .unwrap_or_default();
    let mode = links::mode_name(mode);
    output.line(format!("{name}  {verb}  xdp {mode}{driver}"));
}

/// Says what became of an instance.
fn upgraded_to(output: &Output, instance: &InstanceName, upgraded: &Upgraded) {
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {one}s", grouped(count as u64)),
    };
    let Upgraded {
        from,
        generation,
        rules,
        interfaces,
        ..
    } = upgraded;
    let programs = format!(
        "generation {}, {}, programs on {}",
        generation.0,
        counted(*rules, "rule"),
        counted(*interfaces, "interface"),
    );
    output.line(if *from == ABI {
        format!("{instance}  this version's: {programs} renewed")
    } else {
        format!(
            "{instance}  taken over from ABI {from} to {ABI}: {programs} exchanged; counters, flows and sockets kept"
        )
    });
    if let Some(why) = &upgraded.lost {
        output.warn(
            format!(
                "the text of the rules of instance {instance} is lost ({why}); it was rebuilt from the kernel"
            ),
            Some("apply the rules file again"),
        );
    }
    for (warning, help) in &upgraded.warnings {
        output.warn(warning, Some(help));
    }
}
