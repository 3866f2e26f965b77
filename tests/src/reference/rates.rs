//! Rates, as buckets of tokens.

use std::{collections::HashMap, net::IpAddr};

use portdemux::rules::{
    Rule,
    rate::Rate,
    terms::{Per, Terms},
};

/// For whom a bucket is: of which rate of which rule, and of which source if each has its own.
type Holder = (String, bool, Option<IpAddr>);

/// A second, in nanoseconds.
const SECOND: u128 = 1_000_000_000;

/// The buckets that were used.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: HashMap<Holder, Bucket>,
}

/// A bucket: what was missing from it at some time, in nanoseconds times packets of its rate.
#[derive(Debug)]
struct Bucket {
    missing: u128,
    since: u64,
}

impl Rates {
    /// Whether the rates of a rule let one more packet in; takes its tokens if so. `begins` says whether it begins a
    /// flow.
    pub(super) fn admit(&mut self, rule: &Rule, source: IpAddr, begins: bool, now: u64) -> bool {
        let Terms {
            rate,
            burst,
            new_rate,
            new_burst,
            ..
        } = rule.terms;
        let may_begin = !begins || self.take(rule, (true, new_rate, new_burst), source, now);
        may_begin && self.take(rule, (false, rate, burst), source, now)
    }

    fn take(
        &mut self,
        rule: &Rule,
        (is_new, rate, burst): (bool, Option<Rate>, Option<u64>),
        source: IpAddr,
        now: u64,
    ) -> bool {
        let Some(rate) = rate else {
            return true;
        };
        let whose = (rule.terms.per == Some(Per::Source)).then(|| network(source));
        let bucket = self
            .buckets
            .entry((rule.name.clone(), is_new, whose))
            .or_insert(Bucket {
                missing: 0,
                since: now,
            });
        // So many packets come back in so many nanoseconds: one packet is the time in which all of them do.
        let (packets, packet) = (
            u128::from(rate.packets()),
            u128::from(rate.seconds()) * SECOND,
        );
        let size = u128::from(burst.unwrap_or(rate.packets())) * packet;
        let back = u128::from(now - bucket.since) * packets;
        bucket.missing = bucket.missing.saturating_sub(back);
        bucket.since = now;
        let is_left = bucket.missing + packet <= size;
        if is_left {
            bucket.missing += packet;
        }
        is_left
    }
}

/// Who shares a rate with a source: each IPv4 address, each IPv6 network of 64 bits has one.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(bits.into())
        }
    }
}
