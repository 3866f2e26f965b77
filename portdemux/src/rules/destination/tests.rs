//! Destinations as they are written.

use proptest::prelude::*;

use super::*;

#[test]
fn a_destination_is_written_as_it_is_read() {
    let texts = [
        "local",
        "drop",
        "reject",
        "socket:127.0.0.1:8080",
        "socket:[::1]:8080",
        "socket:localhost:8080",
        "socket:web",
        "socket:8080-web",
        "interface:veth0",
        "interface:a.b-c_d@1",
        "interface:123456789012345",
        "cpu:2-5",
        "cpu:0,2-3",
        "xsk:echo",
    ];
    for text in texts {
        let to: Destination = text.parse().unwrap();
        assert_eq!(to.to_string(), text);
    }
    let cpus: Destination = "cpu:3,0,2-3,1,7".parse().unwrap();
    assert_eq!(cpus.to_string(), "cpu:0-3,7");
}

#[test]
fn what_is_no_destination_is_refused_with_what_to_write() {
    let rows = [
        (
            "lcoal",
            "unknown destination `lcoal`",
            "did you mean <local>",
        ),
        (
            "nowhere",
            "unknown destination `nowhere`",
            "the destinations are local, drop, reject",
        ),
        (
            "intreface:eth0",
            "unknown destination",
            "did you mean <interface:eth0>",
        ),
        ("interface", "unknown destination", "the destinations are"),
        (
            "interface:",
            "`interface:` without a name",
            "interface:veth0",
        ),
        ("interface:1234567890123456", "too long", "at most 15 bytes"),
        (
            "interface:a/b",
            "no interface can be called `a/b`",
            "ip -br link",
        ),
        ("interface:..", "no interface can be called", "ip -br link"),
        ("socket:", "without a name", "socket:web"),
        (
            "socket:localhost",
            "neither an address with a port nor a name",
            "socket:localhost:8080",
        ),
        ("socket:localhost:0", "listens on port 0", "name the port"),
        (
            "socket:8080",
            "a port without an address",
            "write <socket:127.0.0.1:8080>",
        ),
        (
            "socket:127.0.0.1",
            "an address without a port",
            "write <socket:127.0.0.1:8080>",
        ),
        (
            "socket:[::1]",
            "an address without a port",
            "write <socket:[::1]:8080>",
        ),
        (
            "socket:::1",
            "an address without a port",
            "write <socket:[::1]:8080>",
        ),
        (
            "socket:example.org:80",
            "neither an address with a port nor a name",
            "socket:web",
        ),
        (
            "socket:127.0.0.1:0",
            "nothing listens on port 0",
            "name the port",
        ),
        ("socket:127.0.0.1:65536", "neither", "socket:127.0.0.1:8080"),
        (
            "socket:[::ffff:192.0.2.1]:80",
            "inside an IPv6 one",
            "<socket:192.0.2.1:80>",
        ),
        ("socket:a b", "the name `a b`", "1 to 32 letters"),
        ("xsk:a/b", "the name `a/b`", "1 to 32 letters"),
        (
            "xsk:123456789012345678901234567890123",
            "cannot be",
            "1 to 32 letters",
        ),
        ("cpu:", "`` is no CPU", "cpu:2-5"),
        ("cpu:a", "`a` is no CPU", "cpu:2-5"),
        ("cpu:+1", "`+1` is no CPU", "cpu:2-5"),
        ("cpu:1,", "`` is no CPU", "cpu:2-5"),
        ("cpu:5-2", "ends before it begins", "write 2-5"),
        ("cpu:8192", "there is no CPU 8192", "0 to 8191"),
        ("cpu:99999999999", "there is no CPU", "0 to 8191"),
        ("cpu:0-1024", "1025 CPUs are too many", "at most 1024"),
    ];
    for (text, message, help) in rows {
        let error = text.parse::<Destination>().unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
        let told = error.help(|text| format!("<{text}>"));
        assert!(told.contains(help), "{text}: {told}");
    }
}

#[test]
fn a_mac_address_is_that_of_one_card() {
    assert_eq!(
        "02:00:5E:10:00:0a".parse::<Mac>().unwrap().to_string(),
        "02:00:5e:10:00:0a"
    );
    let rows = [
        ("", "not a MAC"),
        ("02:00:5e:10:00", "not a MAC"),
        ("02:00:5e:10:00:01:02", "not a MAC"),
        ("2:00:5e:10:00:01", "not a MAC"),
        ("02-00-5e-10-00-01", "not a MAC"),
        ("+2:00:5e:10:00:01", "not a MAC"),
        ("00:00:00:00:00:00", "no interface has"),
        ("ff:ff:ff:ff:ff:ff", "of a group"),
        ("01:00:5e:00:00:01", "of a group"),
    ];
    for (text, message) in rows {
        let error = text.parse::<Mac>().unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

#[test]
fn what_is_said_of_the_way_must_mean_something_there() {
    let full = Delivery {
        fallback: Some(Fallback::Local),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        queue: Some(64),
    };
    let only = |fallback, mac, queue| Delivery {
        fallback: full.fallback.filter(|_| fallback),
        mac: full.mac.filter(|_| mac),
        queue: full.queue.filter(|_| queue),
    };
    let rows = [
        ("local", [false, false, false]),
        ("drop", [false, false, false]),
        ("reject", [false, false, false]),
        ("socket:web", [true, false, false]),
        ("interface:eth0", [true, true, false]),
        ("cpu:0", [false, false, true]),
        ("xsk:echo", [true, false, false]),
    ];
    for (text, [fallback, mac, queue]) in rows {
        let to: Destination = text.parse().unwrap();
        assert_eq!(
            only(true, false, false).check(&to).is_ok(),
            fallback,
            "{text}"
        );
        assert_eq!(only(false, true, false).check(&to).is_ok(), mac, "{text}");
        assert_eq!(only(false, false, true).check(&to).is_ok(), queue, "{text}");
    }
}

#[test]
fn what_is_usual_is_the_same_as_what_is_left_out() {
    let to: Destination = "interface:eth0".parse().unwrap();
    let said = Delivery {
        fallback: Some(Fallback::Drop),
        ..Delivery::default()
    };
    assert_eq!(said.target(&to), Delivery::default().target(&to));
    assert_eq!(said.words(&to), []);
    let other = Delivery {
        fallback: Some(Fallback::Local),
        ..said
    };
    assert_eq!(other.words(&to), [("fallback", "local".to_owned())]);
    assert_eq!(Delivery::of_target(&other.target(&to), &to), other);
}

proptest! {
    #[test]
    fn nothing_that_is_written_panics(text in "(socket|interface|cpu|xsk)?:?\\PC{0,24}") {
        if let Ok(to) = text.parse::<Destination>() {
            let written = to.to_string();
            prop_assert_eq!(written.parse::<Destination>().unwrap(), to);
            prop_assert!(written.len() <= portdemux_common::capacity::DESTINATION_NAME_LENGTH || written.starts_with("cpu:"));
        }
        let _ = text.parse::<Mac>();
    }
}
