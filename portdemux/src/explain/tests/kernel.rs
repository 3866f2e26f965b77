//! What is said when the kernel says something else.

use portdemux_common::{
    entry::{Action, Entry},
    reason::{Reason, Verdict},
    trace::Trace,
};

use super::*;
use crate::{
    dataplane::shadow_program::ShadowRun,
    explain::agreement::{Difference, differences},
};

#[test]
fn whatever_the_kernel_says_differently_is_named_with_both_sides() {
    let basis = basis();
    let frame = ssh();
    let explained = basis.explain(1, &frame);
    let agreeing = ShadowRun {
        action: 1,
        trace: explained.trace(),
    };
    assert_eq!(differences(&explained, &agreeing), []);
    let run = ShadowRun {
        action: 2,
        trace: Trace {
            verdict: Verdict::Pass as u8,
            reason: Reason::RuleLocal as u8,
            entry: Entry::new(0, Action::Local),
            ..explained.trace()
        },
    };
    let difference = |what, host: &str, kernel: &str| Difference {
        what,
        host: host.into(),
        kernel: kernel.into(),
    };
    assert_eq!(
        differences(&explained, &run),
        [
            difference("action", "XDP_DROP", "XDP_PASS"),
            difference("verdict", "drop", "pass"),
            difference("reason", "rule_drop", "rule_local"),
            difference("rule", "id 1, Drop", "id 0, Local"),
        ]
    );
}

/// Every byte of a trace is told about in some field: none can differ unnoticed.
#[test]
fn a_difference_in_any_byte_of_a_trace_is_seen() {
    let basis = basis();
    let bytes = tagged(
        &frame(Transport::Tcp, "[2001:db8::1]:1", "[2001:db8::10]:22"),
        &[1, 2],
    );
    let explained = basis.explain(1, &bytes);
    for at in 0..size_of::<Trace>() {
        let mut trace = explained.trace();
        bytemuck::bytes_of_mut(&mut trace)[at] ^= 1;
        let run = ShadowRun { action: 2, trace };
        assert_ne!(differences(&explained, &run), [], "byte {at}");
    }
}
