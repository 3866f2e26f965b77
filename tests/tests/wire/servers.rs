//! Real servers and their clients.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{Count, Traffic},
    lab::{INTERFACE, Lab},
    run,
    server::{HOST, HOST_V4, HOST_V6, PAGE, Server, Sshd},
    veth::Offloads,
    wait::{PATIENCE, wait_for},
};

use crate::{Mode, SERVERS, in_both_modes, in_url, tap::Tap};

in_both_modes! {
    every_frame_of_curl_against_nginx_is_counted_by_its_port ["nginx" "curl"];
    every_frame_of_dig_against_dnsmasq_is_counted_by_its_port ["dnsmasq" "dig"];
    every_frame_of_an_ssh_login_is_counted_by_its_port ["sshd" "ssh" "ssh-keygen"];
    all_that_iperf3_transfers_in_complete_frames_is_counted ["iperf3"];
    all_that_iperf3_transfers_with_offloads_is_counted ["iperf3"];
    a_dropped_port_answers_nobody_and_every_drop_is_counted ["nginx" "curl" "dnsmasq" "dig"];
}

fn every_frame_of_curl_against_nginx_is_counted_by_its_port(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[[rule]]\nname = \"web\"\nport = [\"80/tcp\", \"8080/tcp\"]\n",
    )?;
    let _web = Server::nginx(&lab.server, 80)?;
    let _other = Server::nginx(&lab.server, 8080)?;
    for address in SERVERS {
        let host = in_url(address);
        let page = lab
            .client
            .run("curl", &["-sS", &format!("http://{host}/")])?
            .success()?;
        assert_eq!(page.stdout, PAGE);
        let url = format!("http://{host}:8080/big");
        let arguments = ["-sS", "-o", "/dev/null", "-w", "%{size_download}", &url];
        let size = lab.client.run("curl", &arguments)?.success()?;
        assert_eq!(size.stdout, (1 << 20).to_string());
    }
    let stats = tap.agrees(&portdemux, &[])?;
    let (web, other) = (stats.port("80/tcp")?, stats.port("8080/tcp")?);
    // At least the SYN, the request and the FIN of each connection.
    assert!(web.received.packets >= 6, "{web:?}");
    assert!(other.received.packets >= 6, "{other:?}");
    let sum = Count {
        packets: web.received.packets + other.received.packets,
        bytes: web.received.bytes + other.received.bytes,
    };
    assert_eq!(stats.rule("web")?.received, sum);
    assert_eq!(stats.rule_of("80/tcp")?.as_deref(), Some("web"));
    assert_eq!(stats.reasons()?, [("rule_local".to_owned(), sum)]);
    Ok(())
}

fn every_frame_of_dig_against_dnsmasq_is_counted_by_its_port(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach(&lab)?;
    let _dnsmasq = Server::dnsmasq(&lab.server, 53)?;
    for address in SERVERS {
        let server = format!("@{address}");
        for (kind, expected) in [("A", HOST_V4), ("AAAA", HOST_V6)] {
            for transport in ["+notcp", "+tcp"] {
                let arguments = ["+short", "+tries=1", transport, &server, HOST, kind];
                let answer = lab.client.run("dig", &arguments)?.success()?;
                assert_eq!(answer.stdout.trim(), expected);
            }
        }
    }
    let stats = tap.agrees(&portdemux, &[])?;
    assert_eq!(stats.port("53/udp")?.received.packets, 4);
    let tcp = stats.port("53/tcp")?.received.packets;
    assert!(tcp >= 12, "{tcp}");
    Ok(())
}

fn every_frame_of_an_ssh_login_is_counted_by_its_port(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach(&lab)?;
    portdemux.ok(&["add", "22/tcp", "--name", "ssh"])?;
    let sshd = Sshd::new(&lab.server, 22)?;
    for address in SERVERS {
        let login = sshd.login(&lab.client, &address.to_string(), "echo logged in");
        assert_eq!(run::run(login)?.success()?.stdout, "logged in\n");
    }
    let stats = tap.agrees(&portdemux, &[])?;
    let ssh = stats.rule("ssh")?;
    assert_eq!(stats.port("22/tcp")?, ssh);
    assert!(ssh.received.packets > 20, "{ssh:?}");
    Ok(())
}

fn all_that_iperf3_transfers_in_complete_frames_is_counted(mode: Mode) -> Result<()> {
    iperf3(mode, Offloads::Off)
}

fn all_that_iperf3_transfers_with_offloads_is_counted(mode: Mode) -> Result<()> {
    iperf3(mode, Offloads::On)
}

fn iperf3(mode: Mode, offloads: Offloads) -> Result<()> {
    let lab = Lab::with(1500, offloads)?;
    let portdemux = mode.attach(&lab)?;
    let before = sent_by_client(&lab)?;
    let _iperf3 = Server::iperf3(&lab.server, 5201)?;
    let mut transferred = 0;
    for (address, much) in SERVERS.into_iter().zip([["-t", "1"], ["-n", "20M"]]) {
        let address = address.to_string();
        let arguments = [["-c", &address].as_slice(), &["-J"], &much].concat();
        let report = lab.client.run("iperf3", &arguments)?.success()?;
        let report: serde_json::Value = serde_json::from_str(&report.stdout)?;
        let bytes = report["end"]["sum_received"]["bytes"].as_u64();
        transferred += bytes.with_context(|| format!("iperf3 said {report}"))?;
    }
    let mut seen = (0, 0);
    let stats = wait_for(
        "the counters to reach those of the interface",
        PATIENCE,
        || {
            let stats = portdemux.stats()?;
            seen = (
                stats.interface(INTERFACE)?.received.packets,
                sent_by_client(&lab)? - before,
            );
            Ok((seen.0 == seen.1).then_some(stats))
        },
    )
    .with_context(|| format!("{seen:?}"))?;
    let port = stats.port("5201/tcp")?;
    ensure!(
        port.received.bytes >= transferred,
        "{port:?}, but {transferred} bytes were transferred"
    );
    // Nothing but headers and control comes on top.
    let most = transferred / 10 * 13 + (1 << 20);
    ensure!(
        port.received.bytes < most,
        "{port:?}, but only {transferred} bytes were transferred"
    );
    assert_eq!(stats.interface(INTERFACE)?, port);
    assert_eq!(port.dropped, Count::default());
    Ok(())
}

/// How many frames the kernel says the client's interface sent.
fn sent_by_client(lab: &Lab) -> Result<u64> {
    let links = lab
        .client
        .ip(&["-s", "-j", "link", "show", INTERFACE])?
        .stdout;
    let links: serde_json::Value = serde_json::from_str(&links)?;
    links[0]["stats64"]["tx"]["packets"]
        .as_u64()
        .with_context(|| format!("ip said {links}"))
}

fn a_dropped_port_answers_nobody_and_every_drop_is_counted(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach(&lab)?;
    portdemux.ok(&["add", "8080/tcp", "--to", "drop", "--name", "closed-web"])?;
    portdemux.ok(&["add", "5353/udp", "--to", "drop", "--name", "closed-dns"])?;
    let _open_web = Server::nginx(&lab.server, 80)?;
    let _closed_web = Server::nginx(&lab.server, 8080)?;
    let _open_dns = Server::dnsmasq(&lab.server, 53)?;
    let _closed_dns = Server::dnsmasq(&lab.server, 5353)?;
    for address in SERVERS {
        let curl = |port: u16| {
            let url = format!("http://{}:{port}/", in_url(address));
            let arguments = ["-sS", "--connect-timeout", "0.5", &url];
            lab.client.run("curl", &arguments)
        };
        // 28: the connection timed out.
        assert_eq!(curl(8080)?.code(), Some(28));
        assert_eq!(curl(80)?.success()?.stdout, PAGE);
        let dig = |port: u16| {
            let (server, port) = (format!("@{address}"), port.to_string());
            let arguments = ["+short", "+tries=1", "+time=1", "-p", &port, &server, HOST];
            lab.client.run("dig", &arguments)
        };
        // 9: no reply.
        assert_eq!(dig(5353)?.code(), Some(9));
        assert_eq!(dig(53)?.success()?.stdout.trim(), HOST_V4);
    }
    let stats = tap.agrees(&portdemux, &["8080/tcp", "5353/udp"])?;
    let (web, dns) = (stats.port("8080/tcp")?, stats.port("5353/udp")?);
    assert!(web.dropped.packets >= 2, "{web:?}");
    assert_eq!(dns.dropped.packets, 2);
    assert_eq!(stats.rule("closed-web")?, web);
    assert_eq!(stats.rule("closed-dns")?, dns);
    let rule_drop = stats.reason("rule_drop")?;
    assert_eq!(rule_drop.packets, web.dropped.packets + 2);
    assert_eq!(rule_drop.bytes, web.dropped.bytes + dns.dropped.bytes);
    let Traffic { received, dropped } = stats.port("80/tcp")?;
    assert!(
        received.packets >= 6 && dropped.packets == 0,
        "{received:?}"
    );
    Ok(())
}
