use super::*;
use crate::{entry::Action, parse, ruleset::RulesetImage};

const DECISION: Decision = Decision {
    verdict: Verdict::Pass,
    reason: Reason::RuleLocal,
    entry: Entry::new(7, Action::Local),
};

#[test]
fn a_decision_comes_back_from_its_word() {
    for verdict in Verdict::ALL {
        for &reason in Reason::ALL {
            let decision = Decision {
                verdict,
                reason,
                ..DECISION
            };
            assert_eq!(decision.outcome().decision(), decision);
            assert_eq!(decision.outcome().is_dropped(), verdict.is_dropped());
        }
    }
    assert_eq!(DECISION.rule(), Some(7));
    let unclaimed = Decision::undecided(Entry::UNCLAIMED);
    assert_eq!((unclaimed.rule(), unclaimed.verdict), (None, Verdict::Pass));
}

/// A datagram to port 53 of 192.0.2.2, whole but for what is said in the word of fragments; and one whose header lies.
fn datagram(word: u16) -> Vec<u8> {
    let [high, low] = word.to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 7, high, low, 64, 17, 0, 0]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
    frame
}

#[test]
fn a_frame_is_decided_by_its_port_unless_a_setting_asks_more() {
    let mut image: Box<RulesetImage> = bytemuck::zeroed_box();
    let by = |image: &RulesetImage, frame: &[u8]| {
        by_port(&parse::parse(frame), image).map(|decision| (decision.verdict, decision.reason))
    };
    let (whole, first, later) = (datagram(0), datagram(0x2000), datagram(0x2001));
    let cut = &whole[..40];
    let unclaimed = Ok((Verdict::Pass, Reason::Unclaimed));
    assert_eq!([by(&image, &whole), by(&image, &first)], [unclaimed; 2]);
    assert_eq!(
        by(&image, &later),
        Ok((Verdict::Pass, Reason::LaterFragment))
    );
    assert_eq!(by(&image, cut), Ok((Verdict::Drop, Reason::Ip4TotlenLong)));

    image.header.defaults.malformed_pass = 1;
    assert_eq!(by(&image, cut), Ok((Verdict::Pass, Reason::Ip4TotlenLong)));
    image.header.defaults.fragments = Fragments::Track as u32;
    assert_eq!(by(&image, &whole), unclaimed);
    assert_eq!(by(&image, &first), Err(Entry::UNCLAIMED.open()));
    image.header.defaults.fragments = Fragments::Drop as u32;
    assert_eq!(by(&image, &first), unclaimed);
    image.header.defaults.portless_open = 1;
    assert_eq!(by(&image, &later), Err(Entry::UNCLAIMED.open()));
    assert_eq!(by(&image, &[0; 60]), Ok((Verdict::Pass, Reason::NonIp)));
}
