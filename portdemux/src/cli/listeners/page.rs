//! Listeners as a table.

use std::cmp::Reverse;

use portdemux_common::reason::Verdict;

use super::{Row, owner, rank};
use crate::{
    cli::output::{Align, Output, Table},
    figures::{grouped, size, visible},
    listeners::{Part, Reach, Users},
    sockets::{Holder, Socket, SocketState},
};

/// How many processes of one name are written out.
const PROCESSES: usize = 3;
/// How many addresses are.
const ADDRESSES: usize = 2;

/// The listeners as a table; `is_selected` says that only some were asked for.
pub(super) fn text(rows: &[Row], is_selected: bool, output: &Output) -> String {
    if rows.is_empty() {
        return if is_selected {
            "nothing listens on these ports\n".into()
        } else {
            "nothing listens\n".into()
        };
    }
    let users = Users::read();
    let mut table = Table::new()
        .column("PORT", Align::Left, 0)
        .column("ADDRESS", Align::Left, 0)
        .column("PROCESS", Align::Left, 0)
        .column("USER", Align::Left, 2)
        .column("QUEUE", Align::Right, 1)
        .column("REACH", Align::Left, 0);
    for Row {
        listener, parts, ..
    } in rows
    {
        let socket = &listener.socket;
        let user = owner(&users, socket);
        table.row([
            format!("{}/{}", socket.port, socket.transport.name()),
            address(socket, listener.device.as_deref()),
            processes(&listener.holders),
            user.map_or_else(
                || socket.owner.to_string(),
                |name| visible(name).into_owned(),
            ),
            queue(socket),
            reach(parts),
        ]);
    }
    table.render(output)
}

/// The names of programs behind a port, as other tables have them.
pub(in crate::cli) fn names(names: &[Option<&str>]) -> String {
    let Some(first) = names.first() else {
        return String::new();
    };
    let first = first.map_or("(unknown)".into(), visible);
    match names.len() - 1 {
        0 => first.into_owned(),
        more => format!("{first} +{more}"),
    }
}

fn address(socket: &Socket, device: Option<&str>) -> String {
    let mut text = if socket.is_wildcard() && socket.is_dual {
        "any".into()
    } else {
        listed(&socket.addresses, socket.addresses.len())
    };
    if let Some(device) = device {
        text.push('%');
        text.push_str(device);
    }
    text
}

/// Processes of one name stand together: `nginx (812, 813)`.
fn processes(holders: &[Holder]) -> String {
    let mut names: Vec<(&str, Vec<u32>)> = Vec::new();
    for Holder { name, pid, .. } in holders {
        match names.iter_mut().find(|(known, _)| known == name) {
            Some((_, pids)) => pids.push(*pid),
            None => names.push((name, vec![*pid])),
        }
    }
    let names = names.iter().map(|(name, pids)| {
        let numbers = listed(pids, PROCESSES);
        format!("{} ({numbers})", visible(name))
    });
    names.collect::<Vec<_>>().join(", ")
}

fn queue(socket: &Socket) -> String {
    let queue = &socket.queue;
    match socket.state {
        SocketState::Listening => {
            let room = queue.room.map_or_else(|| "?".into(), grouped);
            let full = if queue.is_full() { " (full)" } else { "" };
            format!("{} of {room}{full}", grouped(queue.waiting))
        }
        SocketState::Bound | SocketState::Connected => match queue.dropped {
            None | Some(0) => size(queue.waiting.into()),
            Some(lost) => format!("{}, {} lost", size(queue.waiting.into()), grouped(lost)),
        },
    }
}

/// How the rules reach a socket: in one phrase, or each part in one, the widest last.
fn reach(parts: &[Part]) -> String {
    match parts {
        [] => String::new(),
        [part] => phrase(&part.reach),
        _ => {
            let is_unwatched = |part: &&Part| matches!(part.reach, Reach::Unwatched { .. });
            let (unwatched, mut parts): (Vec<&Part>, Vec<&Part>) =
                parts.iter().partition(is_unwatched);
            parts.sort_by_key(|part| {
                let is_whole = part.peers.is_none() && !matches!(part.reach, Reach::Socket { .. });
                (is_whole, part.addresses.len(), Reverse(rank(&part.reach)))
            });
            let (last, exceptions) = match parts.split_last() {
                Some((last, exceptions)) => (phrase(&last.reach), exceptions),
                None => return past_the_rules(&unwatched),
            };
            let exceptions = exceptions.iter().map(|part| {
                let phrase = phrase(&part.reach);
                match &part.peers {
                    Some(rule) => format!("{phrase}, from the ports of rule {rule}"),
                    None if part.addresses.is_empty() => phrase,
                    None => format!("{phrase}, at {}", listed(&part.addresses, ADDRESSES)),
                }
            });
            let past = (!unwatched.is_empty()).then(|| past_the_rules(&unwatched));
            let exceptions = exceptions.chain(past).collect::<Vec<_>>().join("; ");
            format!("partly: {exceptions}; else {last}")
        }
    }
}

/// What comes past the rules, by whichever interfaces.
fn past_the_rules(parts: &[&Part]) -> String {
    let interfaces = parts.iter().filter_map(|part| {
        if let Reach::Unwatched { interface } = &part.reach {
            interface.as_deref()
        } else {
            None
        }
    });
    let interfaces: Vec<&str> = interfaces.collect();
    if interfaces.is_empty() {
        return "past the rules".into();
    }
    format!("past the rules, by {}", listed(&interfaces, ADDRESSES))
}

fn phrase(reach: &Reach) -> String {
    let by = |rule: Option<&str>| match rule {
        Some(rule) => format!("by rule {rule}"),
        None => "by [default] inbound".into(),
    };
    match reach {
        Reach::Direct { rule: None } => "directly".into(),
        Reach::Direct { rule: Some(rule) } => format!("directly, rule {rule}"),
        Reach::Sources { rule } => format!("from some sources, rule {rule}"),
        Reach::Socket { rule, ports } => {
            let ports = listed(ports, ADDRESSES);
            format!("through sk_lookup from {ports}, rule {rule}")
        }
        Reach::Unwatched { interface: None } => "past the rules".into(),
        Reach::Unwatched {
            interface: Some(interface),
        } => format!("past the rules, by {interface}"),
        Reach::Replies { rule } => format!("replies only, rule {rule}"),
        Reach::Elsewhere { rule, to } => format!("not: rule {rule} sends to {to}"),
        Reach::Refused { verdict, rule } => {
            let what = match verdict {
                Verdict::Reject => "rejected",
                Verdict::Drop | Verdict::Pass | Verdict::Redirect => "dropped",
            };
            format!("not: {what} {}", by(rule.as_deref()))
        }
        Reach::Loopback => "not: only on loopback".into(),
    }
}

/// So many of a list, and how many more there are.
fn listed<T: ToString>(items: &[T], most: usize) -> String {
    let mut texts: Vec<String> = items.iter().take(most).map(ToString::to_string).collect();
    if items.len() > most {
        texts.push(format!("+{}", items.len() - most));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(reach: Reach, addresses: &[&str]) -> Part {
        Part {
            reach,
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            peers: None,
        }
    }

    #[test]
    fn where_parts_differ_the_widest_comes_last() {
        let web = || Some("web".to_owned());
        let direct = part(
            Reach::Direct { rule: web() },
            &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        );
        assert_eq!(reach(&[]), "");
        assert_eq!(reach(std::slice::from_ref(&direct)), "directly, rule web");
        let dropped = |addresses: &[&str]| {
            let verdict = Verdict::Drop;
            part(
                Reach::Refused {
                    verdict,
                    rule: None,
                },
                addresses,
            )
        };
        assert_eq!(
            reach(&[direct.clone(), dropped(&["2001:db8::1"])]),
            "partly: not: dropped by [default] inbound, at 2001:db8::1; else directly, rule web"
        );
        let peers = Part {
            peers: web(),
            ..direct.clone()
        };
        assert_eq!(
            reach(&[peers, dropped(&["192.0.2.1"])]),
            "partly: directly, rule web, from the ports of rule web; else not: dropped by [default] inbound"
        );
        let by = |interface: &str| {
            let interface = Some(interface.to_owned());
            part(
                Reach::Unwatched { interface },
                &["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"],
            )
        };
        assert_eq!(
            reach(&[dropped(&["192.0.2.1"]), by("eth1")]),
            "partly: past the rules, by eth1; else not: dropped by [default] inbound"
        );
        assert_eq!(
            reach(&[
                direct.clone(),
                dropped(&["2001:db8::1"]),
                by("eth1"),
                by("br0"),
                by("br1")
            ]),
            "partly: not: dropped by [default] inbound, at 2001:db8::1; past the rules, by eth1, br0, +1; else \
             directly, rule web"
        );
        let ports = ["443/tcp", "80/tcp", "81/tcp"].map(|port| port.parse().unwrap());
        let handed = Reach::Socket {
            rule: "web".into(),
            ports: ports.into(),
        };
        assert_eq!(
            reach(&[part(handed, &[]), direct]),
            "partly: through sk_lookup from 443/tcp, 80/tcp, +1, rule web; else directly, rule web"
        );
    }

    #[test]
    fn processes_of_one_name_stand_together() {
        let holder = |pid, name: &str| Holder {
            pid,
            name: name.into(),
            descriptor: 3,
        };
        let nginx = |pid| holder(pid, "nginx");
        assert_eq!(processes(&[]), "");
        assert_eq!(processes(&[nginx(7)]), "nginx (7)");
        assert_eq!(
            processes(&[
                nginx(7),
                nginx(8),
                nginx(9),
                nginx(10),
                nginx(11),
                holder(1, "\u{1b}init")
            ]),
            "nginx (7, 8, 9, +2), \u{fffd}init (1)"
        );
        assert_eq!(names(&[]), "");
        assert_eq!(names(&[Some("nginx")]), "nginx");
        assert_eq!(names(&[None, Some("nginx"), Some("dig")]), "(unknown) +2");
    }
}
