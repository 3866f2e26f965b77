use super::{
    super::{
        Direction::{Received, Sent},
        state::State::*,
    },
    *,
};

/// Rows: what is sent one way or the other, and how far the flow has come then.
fn walk(protocol: u8, steps: &[(Direction, Observed, State)]) -> Status {
    let mut state = None;
    for (number, &(direction, observed, expected)) in steps.iter().enumerate() {
        let next = match state {
            None => Status::begun(direction, protocol, observed, false),
            Some(state) => Status::next(state, direction, protocol, observed),
        };
        assert_eq!(next.state(), expected, "step {number} of {steps:?}");
        state = Some(next);
    }
    state.unwrap()
}

#[test]
fn a_flag_says_what_it_says() {
    let rows = [
        (0x02, Signal::Open),
        (0xc2, Signal::Open),
        (0x12, Signal::Answer),
        (0x10, Signal::Continue),
        (0x18, Signal::Continue),
        (0x00, Signal::Continue),
        (0x11, Signal::Close),
        (0x01, Signal::Close),
        (0x14, Signal::Abort),
        (0x04, Signal::Abort),
        (0x07, Signal::Abort),
        (0x03, Signal::Open),
    ];
    for (flags, signal) in rows {
        assert_eq!(Signal::of(TCP, flags), signal, "{flags:#x}");
        assert_eq!(Signal::of(UDP, flags), Signal::Continue);
        assert_eq!(Signal::of_code(signal as u32), signal);
    }
}

#[test]
fn a_tcp_handshake_of_a_peer_is_complete_with_the_number_it_was_sent() {
    let (open, answer) = (observed(Signal::Open), observed(Signal::Answer));
    let wrong = Observed {
        acknowledged: ACK.acknowledged.wrapping_add(1),
        ..ACK
    };
    let state = walk(
        TCP,
        &[
            (Received, open, Opening),
            (Received, open, Opening),
            (Sent, answer, Answered),
            (Received, open, Answered),
            (Sent, answer, Answered),
            (Received, wrong, Answered),
            (Sent, ACK, Answered),
            (Received, ACK, Established),
            (Sent, ACK, Established),
        ],
    );
    assert!(!state.is_from_here());
}

#[test]
fn a_tcp_handshake_of_this_host_is_complete_when_it_acknowledges() {
    let state = walk(
        TCP,
        &[
            (Sent, observed(Signal::Open), Opening),
            (Sent, observed(Signal::Open), Opening),
            (Received, observed(Signal::Answer), Answered),
            (Sent, ACK, Established),
            (Received, ACK, Established),
        ],
    );
    assert!(state.is_from_here());
}

#[test]
fn a_flow_is_closed_when_both_have_closed_or_one_has_broken_off() {
    let established = [
        (Sent, observed(Signal::Open), Opening),
        (Received, observed(Signal::Answer), Answered),
        (Sent, ACK, Established),
    ];
    let (close, abort) = (observed(Signal::Close), observed(Signal::Abort));
    for (first, second) in [(Sent, Received), (Received, Sent)] {
        let ways = [
            (first, close, Closing),
            (second, ACK, Closing),
            (first, close, Closing),
            (second, close, Closed),
            (first, ACK, Closed),
        ];
        walk(TCP, &[&established[..], &ways].concat());
    }
    for length in 1..=established.len() {
        for direction in [Sent, Received] {
            let broken = [(direction, abort, Closed), (direction, ACK, Closed)];
            walk(TCP, &[&established[..length], &broken].concat());
        }
    }
}

#[test]
fn a_new_beginning_of_the_same_side_begins_a_closed_flow_anew() {
    let (open, abort) = (observed(Signal::Open), observed(Signal::Abort));
    let again = walk(
        TCP,
        &[
            (Received, open, Opening),
            (Sent, abort, Closed),
            (Received, open, Opening),
        ],
    );
    assert!(!again.is_from_here());
    let again = walk(
        TCP,
        &[
            (Sent, open, Opening),
            (Received, abort, Closed),
            (Sent, open, Opening),
        ],
    );
    assert!(again.is_from_here());
    walk(
        TCP,
        &[
            (Sent, open, Opening),
            (Received, abort, Closed),
            (Received, open, Closed),
        ],
    );
}

#[test]
fn what_is_seen_from_its_middle_on_is_known_when_this_host_goes_on() {
    let state = walk(TCP, &[(Sent, ACK, Established)]);
    assert!(state.is_from_here());
    let serving = Status::begun(Sent, TCP, ACK, true);
    assert!(!serving.is_from_here() && serving.state() == Established);
    walk(
        TCP,
        &[
            (Received, ACK, Opening),
            (Received, ACK, Opening),
            (Sent, ACK, Established),
        ],
    );
    // Whoever is only answered with a reset has begun nothing.
    walk(
        TCP,
        &[
            (Received, ACK, Opening),
            (Sent, observed(Signal::Abort), Closed),
        ],
    );
    // An answer to a beginning that was forgotten does not make the flow this host's.
    let answered = Status::begun(Sent, TCP, observed(Signal::Answer), false);
    assert!(!answered.is_from_here() && answered.state() == Answered);
    assert_eq!(answered.next(Received, TCP, ACK).state(), Established);
}

#[test]
fn a_udp_flow_is_established_when_the_one_who_began_has_heard_the_other() {
    let data = observed(Signal::Continue);
    for (one, other) in [(Sent, Received), (Received, Sent)] {
        walk(
            UDP,
            &[
                (one, data, Opening),
                (one, data, Opening),
                (other, data, Answered),
                (other, data, Answered),
                (one, data, Established),
            ],
        );
    }
}

#[test]
fn an_sctp_handshake_ends_with_the_acknowledgment_of_the_cookie() {
    for (one, other) in [(Sent, Received), (Received, Sent)] {
        let chunk = |kind| observed(Signal::of(SCTP, kind));
        walk(
            SCTP,
            &[
                (one, chunk(1), Opening),
                (other, chunk(2), Answered),
                // Whoever sends under a false address gets no further by data.
                (one, chunk(0), Answered),
                (one, chunk(10), Answered),
                (other, chunk(11), Established),
                (one, chunk(0), Established),
                (one, chunk(7), Closing),
                (other, chunk(8), Closed),
                (one, chunk(14), Closed),
            ],
        );
    }
}

#[test]
fn a_flow_is_remembered_for_as_long_as_its_stage_says() {
    let status = |state| match state {
        Opening => Status::begun(Received, TCP, observed(Signal::Open), false),
        Closed | Closing | Answered | Established => Status::established(false),
    };
    let rows = [
        (TCP, Opening, 10),
        (TCP, Established, 1_000),
        (SCTP, Opening, 10),
        (SCTP, Established, 900),
        (UDP, Opening, 30),
        (UDP, Established, 300),
        (1, Opening, 40),
        (58, Established, 40),
    ];
    for (protocol, state, ticks) in rows {
        assert_eq!(
            status(state).timeout(protocol, &TIMEOUTS),
            ticks,
            "{protocol} {state:?}"
        );
    }
    let closed = Status::established(true).next(Sent, TCP, observed(Signal::Abort));
    assert_eq!(closed.timeout(TCP, &TIMEOUTS), 20);
}
