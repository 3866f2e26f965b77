//! Who is in a set, as it is written.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use ipnet::IpNet;

use super::{layout, list::item_extent, quoted};
use crate::rules::{
    document::{self, Pair, Section, Value, ValueKind},
    error::{Diagnostic, RulesError},
    source::{Becomes, MemberChange, Source, parse_prefix},
    until::Until,
};

/// Writes changes of sets into the text of a rules file; `file` is its name in errors. Of a prefix the
/// last change counts. Whose time was over at `now`, in milliseconds since 1970, is left out.
///
/// # Errors
///
/// A set does not stand in the text.
pub fn members(
    file: &str,
    text: &str,
    changes: &[MemberChange],
    now: u64,
) -> Result<String, RulesError> {
    let mut by_set: BTreeMap<&str, HashMap<IpNet, Becomes>> = BTreeMap::new();
    for change in changes {
        let set = by_set.entry(&change.set).or_default();
        set.insert(change.prefix, change.becomes);
    }
    let edited = edited(text, now, |name, _| by_set.remove(name));
    if let Some(name) = by_set.keys().next() {
        let mistake = Diagnostic::new(format!("no set is called `{name}`"));
        return Err(RulesError::new(file, vec![mistake]));
    }
    Ok(edited)
}

/// A line, or several, that define a set.
#[must_use]
pub fn set(name: &str, members: &[(IpNet, Option<Until>)]) -> String {
    /// With more members than this each has a line of its own.
    const IN_A_LINE: usize = 4;
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name = if name.chars().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    };
    let members = members.iter().copied().map(written);
    let members: Vec<String> = members.collect();
    if members.len() <= IN_A_LINE {
        return format!("{name} = [{}]\n", members.join(", "));
    }
    let lines = members.iter().map(|member| format!("    {member},\n"));
    format!("{name} = [\n{}]\n", lines.collect::<String>())
}

/// What stands in a rules file for no rules: one with nothing in it is refused.
const NO_RULES: &str = "# No rules: all that is well-formed passes and is counted.\n";

/// The text of a rules file that can be applied at `now`, in milliseconds since 1970: without the members of sets whose
/// time was over by then.
#[must_use]
pub fn without_ended(text: &str, now: u64) -> String {
    if text.trim().is_empty() {
        return NO_RULES.into();
    }
    edited(text, now, |_, value| {
        let mut members = items(value).iter().filter_map(member);
        let has_ended = members.any(|(_, until)| until.is_some_and(|until| until.unix <= now));
        has_ended.then(HashMap::new)
    })
}

/// The text after changes of those sets for which there are some.
fn edited<'t>(
    text: &'t str,
    now: u64,
    mut changes: impl FnMut(&str, &Value<'t>) -> Option<HashMap<IpNet, Becomes>>,
) -> String {
    let mut cuts: Vec<(Range<usize>, String)> = Vec::new();
    document::read(text, &mut |section| {
        for (name, value) in sets(section) {
            if let Some(changes) = changes(name, value) {
                cuts.push((
                    value.offset..value.end,
                    rewritten(text, value, &changes, now),
                ));
            }
        }
    });
    cuts.sort_unstable_by_key(|(range, _)| range.start);
    // Something stands behind every value, so that no empty lines are cut off.
    let end = cuts.last().map_or(0, |(range, _)| range.end);
    let edited = layout::replace(&format!("{}\u{0}", &text[..end]), &cuts);
    format!("{}{}", edited.trim_end_matches('\u{0}'), &text[end..])
}

/// What stands in a set.
fn items<'v, 't>(value: &'v Value<'t>) -> &'v [Value<'t>] {
    match &value.kind {
        ValueKind::List(values) => values,
        ValueKind::Text(_) | ValueKind::Table(_) | ValueKind::Other(_) => {
            std::slice::from_ref(value)
        }
    }
}

/// The sets that stand in a section.
pub(super) fn sets<'s, 't>(section: &'s Section<'t>) -> Vec<(&'s str, &'s Value<'t>)> {
    let is_sets = section
        .header
        .as_ref()
        .map(|header| matches!(&header.path[..], [name] if name.text == "sets"));
    let whole = |entries: &'s [Pair<'t>]| -> Vec<(&'s str, &'s Value<'t>)> {
        let entries = entries.iter().filter(|entry| entry.rest.is_empty());
        entries
            .map(|entry| (&*entry.key.text, &entry.value))
            .collect()
    };
    match is_sets {
        Some(true) => whole(&section.entries),
        Some(false) => Vec::new(),
        None => section
            .entries
            .iter()
            .filter(|entry| entry.key.text == "sets")
            .flat_map(|entry| match (&entry.rest[..], &entry.value.kind) {
                ([name], _) => vec![(&*name.text, &entry.value)],
                ([], ValueKind::Table(entries)) => whole(entries),
                _ => Vec::new(),
            })
            .collect(),
    }
}

/// The value of a set after changes.
fn rewritten(text: &str, value: &Value<'_>, changes: &HashMap<IpNet, Becomes>, now: u64) -> String {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for item in items(value) {
        let span = item.offset..item.end;
        let is_over = |until: Until| until.unix <= now;
        match member(item) {
            Some((prefix, until))
                if changes.contains_key(&prefix) || until.is_some_and(is_over) =>
            {
                gone.push(span);
            }
            Some(_) | None => kept.push(span),
        }
    }
    let mut new: Vec<(IpNet, Option<Until>)> = changes
        .iter()
        .filter_map(|(prefix, becomes)| match becomes {
            Becomes::Member(until) => Some((*prefix, *until)),
            Becomes::NonMember => None,
        })
        .filter(|(_, until)| until.is_none_or(|until| until.unix > now))
        .collect();
    new.sort_unstable();
    let new: Vec<String> = new.into_iter().map(written).collect();
    let old = &text[value.offset..value.end];
    if old.contains('\n') && matches!(value.kind, ValueKind::List(_)) {
        let edited = in_lines(old, value.offset, &kept, &gone, &new);
        if holds(&edited, kept.len() + new.len()) {
            return edited;
        }
    }
    let kept = kept.into_iter().map(|span| text[span].to_owned());
    let all: Vec<String> = kept.chain(new).collect();
    format!("[{}]", all.join(", "))
}

/// Edits a list that spans lines, which keeps its layout.
fn in_lines(
    old: &str,
    offset: usize,
    kept: &[Range<usize>],
    gone: &[Range<usize>],
    new: &[String],
) -> String {
    let own = |span: &Range<usize>| span.start - offset..span.end - offset;
    let mut cuts: Vec<(Range<usize>, String)> = gone
        .iter()
        .map(|span| (item_extent(old, own(span)), String::new()))
        .collect();
    let end = old.len() - 1;
    if !new.is_empty() {
        if let Some(last) = kept.last().map(own)
            && !old[last.end..].trim_start().starts_with(',')
        {
            cuts.push((last.end..last.end, ",".into()));
        }
        let lines = new.iter().map(|item| format!("    {item},\n"));
        let begins_line = old[..end].trim_end_matches([' ', '\t']).ends_with('\n');
        let before = if begins_line { "" } else { "\n" };
        let line = old[..end].rfind('\n').map_or(end, |newline| newline + 1);
        let index = if begins_line { line } else { end };
        cuts.push((
            index..index,
            format!("{before}{}", lines.collect::<String>()),
        ));
    }
    cuts.sort_by_key(|(range, _)| (range.start, range.end));
    layout::replace(old, &cuts)
}

/// Whether a text is a list of so many members.
fn holds(list: &str, count: usize) -> bool {
    let text = format!("set = {list}");
    let mut found = None;
    let errors = document::read(&text, &mut |section| {
        if let Some(ValueKind::List(items)) = section.entries.first().map(|entry| &entry.value.kind)
        {
            found = Some(items.iter().filter_map(member).count());
        }
    });
    errors.is_empty() && found == Some(count)
}

/// What an item of a set says.
fn member(item: &Value<'_>) -> Option<(IpNet, Option<Until>)> {
    match &item.kind {
        ValueKind::Text(text) => Some((parse_prefix(text).ok()?, None)),
        ValueKind::Table(entries) => {
            let find = |key: &str| {
                let entry = entries.iter().find(|entry| entry.key.text == key)?;
                match &entry.value.kind {
                    ValueKind::Text(text) => Some(text),
                    ValueKind::List(_) | ValueKind::Table(_) | ValueKind::Other(_) => None,
                }
            };
            let until = find("until").and_then(|text| text.parse().ok());
            Some((parse_prefix(find("prefix")?).ok()?, until))
        }
        ValueKind::List(_) | ValueKind::Other(_) => None,
    }
}

/// A member as it is written.
fn written((prefix, until): (IpNet, Option<Until>)) -> String {
    let prefix = quoted(&Source::Prefix(prefix).to_string());
    match until {
        Some(until) => format!("{{ prefix = {prefix}, until = \"{until}\" }}"),
        None => prefix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::file::parse;

    const TEXT: &str = "\
[sets]
one = \"192.0.2.1\"   # alone
line = [\"192.0.2.1\", { prefix = \"192.0.2.2\", until = \"2030-01-01T00:00:00Z\" }]
lines = [
    \"192.0.2.1\",  # first
    \"192.0.2.2\" # last
]
empty = []
[[rule]]
port = \"1/tcp\"
from = [\"@one\", \"@line\", \"@lines\", \"@empty\"]


";

    fn edited(changes: &[(&str, &str, Becomes)]) -> String {
        let changes: Vec<_> = changes
            .iter()
            .map(|&(set, prefix, becomes)| MemberChange {
                set: set.into(),
                prefix: parse_prefix(prefix).unwrap(),
                becomes,
            })
            .collect();
        let edited = members("f.toml", TEXT, &changes, 1_000).unwrap();
        parse("f.toml", &edited).unwrap();
        edited
    }

    const FOR_GOOD: Becomes = Becomes::Member(None);
    const FOR_A_TIME: Becomes = Becomes::Member(Some(Until { unix: 60_000 }));

    #[test]
    fn members_come_and_go_and_the_rest_of_the_text_stays() {
        for (changes, before, after) in [
            (
                &[("one", "192.0.2.7", FOR_GOOD)][..],
                "one = \"192.0.2.1\"   #",
                "one = [\"192.0.2.1\", \"192.0.2.7\"]   #",
            ),
            (
                &[("one", "192.0.2.1", Becomes::NonMember)],
                "one = \"192.0.2.1\"   #",
                "one = []   #",
            ),
            (
                &[("line", "192.0.2.2", FOR_A_TIME)],
                "2030-01-01T00:00:00Z",
                "1970-01-01T00:01:00Z",
            ),
            (
                &[
                    ("lines", "192.0.2.2", Becomes::NonMember),
                    ("lines", "2001:db8::/64", FOR_GOOD),
                ],
                "    \"192.0.2.2\" # last\n",
                "    \"2001:db8::/64\",\n",
            ),
            (
                &[("lines", "192.0.2.7", FOR_A_TIME)],
                "\"192.0.2.2\" # last\n",
                "\"192.0.2.2\", # last\n    { prefix = \"192.0.2.7\", until = \
                 \"1970-01-01T00:01:00Z\" },\n",
            ),
            (
                &[
                    ("empty", "192.0.2.7", FOR_GOOD),
                    ("empty", "192.0.2.7", Becomes::NonMember),
                    ("empty", "192.0.2.0/25", FOR_GOOD),
                ],
                "empty = []",
                "empty = [\"192.0.2.0/25\"]",
            ),
        ] {
            assert_eq!(edited(changes), TEXT.replace(before, after));
        }
    }

    #[test]
    fn whose_time_is_over_is_left_out() {
        let over = Becomes::Member(Some(Until { unix: 999 }));
        assert_eq!(edited(&[("empty", "192.0.2.7", over)]), TEXT);
        let unknown = MemberChange {
            set: "none".into(),
            prefix: "::/0".parse().unwrap(),
            becomes: FOR_GOOD,
        };
        let told = members("f.toml", TEXT, &[unknown], 0).unwrap_err();
        assert!(told.to_string().contains("no set is called `none`"));
    }
}
