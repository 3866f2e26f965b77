//! Circles that stay for now: the folder, its modules that import one another, and why.

/// What is listed here and is no circle any more is a mistake, too.
pub(super) const KNOWN: &[(&str, &[&str], &str)] = &[
    (
        "portdemux/src",
        &["dataplane", "instance"],
        "an instance is opened by its maps, and programs are attached to an instance: both are in dataplane",
    ),
    (
        "portdemux/src/dataplane",
        &[
            "blocks",
            "counters",
            "flows",
            "layout",
            "links",
            "maps",
            "redirect_drops",
            "steering",
            "tables",
            "targets",
        ],
        "the maps are made and opened where they are put together, and a larger map of tables replaces programs",
    ),
    (
        "portdemux/src/rules",
        &["claims", "conflict", "intervals", "ruleset"],
        "what a ruleset is made of is checked against the whole of it",
    ),
    (
        "portdemux/src/rules",
        &["destination", "rule", "source"],
        "a rule and its parts say their mistakes by the names of one another",
    ),
];
