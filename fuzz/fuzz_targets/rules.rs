//! A text is rules or mistakes. What rules say of an entry point, the image says and the reference says.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use portdemux::{
    image,
    rules::{Layer, Ruleset, file},
};
use portdemux_common::{
    ids::RuleId,
    parse::{Address, Ports},
    wire::Port,
};
use portdemux_tests::{
    answer::{Answer, Class},
    reference::claims,
};

/// With more rules than this a text tells nothing new.
const MOST: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match file::parse("rules", text) {
        Ok(ruleset) => check(&ruleset),
        Err(err) => assert!(!err.to_string().is_empty()),
    }
});

fn check(ruleset: &Ruleset) {
    let rules = ruleset.rules();
    if rules.len() > MOST {
        return;
    }
    let ids: Vec<RuleId> = (0..).take(rules.len()).collect();
    let Ok(compiled) = image::compile(ruleset, &ids) else {
        return;
    };
    for rule in rules {
        assert!(rule.says_the_same(rule) && !rule.name.is_empty());
        let any = [IpAddr::from([192, 0, 2, 2]), IpAddr::from([0; 16])];
        for range in &rule.ports {
            for port in [range.first, range.last] {
                for &address in rule.addresses.iter().chain(&any) {
                    let ports = Ports {
                        transport: range.transport,
                        source: Port::new(1),
                        destination: Port::new(port),
                    };
                    let entry = compiled.lookup(Some(bytes_of(address)), ports);
                    let answer = Answer {
                        class: Class::Ports,
                        destination: Some(address),
                        protocol: Some(range.transport.ip_proto().0),
                        ports: Some((1, port)),
                        ..Answer::nothing()
                    };
                    let expected = claims::claim(ruleset, Layer::Destination, &answer);
                    let said = entry.is_claimed().then(|| entry.rule() as usize);
                    assert_eq!(said, expected, "{range} at {address}");
                }
            }
        }
    }
}

fn bytes_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::V4(address.octets()),
        IpAddr::V6(address) => Address::V6(address.octets()),
    }
}
