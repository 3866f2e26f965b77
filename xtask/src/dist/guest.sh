#!/bin/bash
# Runs in the machine that boots the package, once for each boot, and says on the console what it finds.
set -u
console=/dev/ttyS0
exec >$console 2>&1
boot=$(cat /root/boot 2>/dev/null || echo 1)
echo $((boot + 1)) >/root/boot
end() {
    [ "$1" = ok ] || { systemctl status portdemux@default --no-pager -l; journalctl -u portdemux@default -b --no-pager | tail -40; }
    echo "guest: boot $boot $1"
    sync
    [ "$1" = ok ] && [ "$boot" = 1 ] && { systemctl reboot --force; exit; }
    systemctl poweroff --force --force
    exit
}
must() { "$@" || { echo "guest: failed: $*"; end failed; }; }
fails() { ! "$@"; }
says() { local wanted=$1; shift; local said; said=$("$@" 2>&1); case "$said" in *"$wanted"*) ;; *) echo "guest: '$*' says $said"; end failed ;; esac; }
monotonic() { systemctl show -P "$2" "$1"; }
xdp() { ip -d link show "$1" | grep -q 'prog/xdp'; }

echo "guest: boot $boot, $(uname -r), systemd $(systemctl --version | head -1)"
# It is up before the network is, so that this waits for nothing.
must systemctl is-active --quiet portdemux@default
must xdp ens5
ready=$(monotonic portdemux@default ActiveEnterTimestampMonotonic)
network=$(monotonic network-pre.target ActiveEnterTimestampMonotonic)
must [ "$ready" -gt 0 ]
must [ "$ready" -le "$network" ]
says 'waiting for late0' systemctl status portdemux@default
case "$boot" in
1)
    says '1 rule ' portdemux status
    says '(in sync)' portdemux status
    # A file with a mistake changes nothing.
    cp /etc/portdemux/default.toml /root/good.toml
    echo 'nonsense = 1' >>/etc/portdemux/default.toml
    must fails systemctl reload portdemux@default
    says 'generation 1 ' portdemux status
    cp /root/good.toml /etc/portdemux/default.toml
    printf '\n[[rule]]\nname = "more"\nport = "9/udp"\nto = "drop"\n' >>/etc/portdemux/default.toml
    must systemctl reload portdemux@default
    says '2 rules' portdemux status
    # Stopping leaves protection on.
    must systemctl stop portdemux@default
    must xdp ens5
    must systemctl start portdemux@default
    must portdemux add 11/udp --name by-hand --to drop
    says '(differs from what is in force)' portdemux status
    must portdemux save
    says '(in sync)' portdemux status
    ;;
2)
    says '3 rules' portdemux status
    says by-hand portdemux rules
    # An interface that comes late, and datagrams for a port that is dropped.
    must ip netns add peer
    must ip link add late0 type veth peer name wire netns peer
    for _ in $(seq 300); do xdp late0 && break; sleep 0.1; done
    must xdp late0
    must ip addr add 192.0.2.2/24 dev late0
    must ip link set late0 up
    must ip -n peer addr add 192.0.2.1/24 dev wire
    must ip -n peer link set wire up
    arrived() { awk '/^Udp: [0-9]/ { print $2 + $3 }' /proc/net/snmp; }
    dropped() {
        local count
        count=$(portdemux stats --json | sed -n 's/.*"reason":"rule_drop","packets":\([0-9]*\).*/\1/p')
        echo "${count:-0}"
    }
    before=$(arrived)
    ip netns exec peer bash -c 'while :; do echo x >/dev/udp/192.0.2.2/9; done' 2>/dev/null &
    sender=$!
    for _ in $(seq 100); do [ "$(dropped)" -gt 100 ] && break; sleep 0.1; done
    must [ "$(dropped)" -gt 100 ]
    pid=$(systemctl show -P MainPID portdemux@default)
    must portdemux add 13/udp --name unsaved
    # An upgrade of the package under that traffic.
    must dpkg --install /root/newer.deb
    for _ in $(seq 300); do readlink "/proc/$pid/exe" | grep -q deleted || break; sleep 0.1; done
    says /usr/bin/portdemux readlink "/proc/$pid/exe"
    must fails grep -q deleted <(readlink "/proc/$pid/exe")
    must [ "$pid" = "$(systemctl show -P MainPID portdemux@default)" ]
    says unsaved portdemux rules
    must xdp ens5
    must xdp late0
    counted=$(dropped)
    for _ in $(seq 100); do [ "$(dropped)" -gt "$counted" ] && break; sleep 0.1; done
    must [ "$(dropped)" -gt "$counted" ]
    kill $sender
    must [ "$(arrived)" = "$before" ]
    echo "guest: $(dropped) datagrams were dropped and none arrived"
    # Removed, nothing is attached; purged, nothing is left.
    must dpkg --remove portdemux
    must fails xdp ens5
    must fails xdp late0
    must [ -e /etc/portdemux/default.toml ]
    must dpkg --purge portdemux
    must [ ! -e /etc/portdemux ]
    must [ ! -e /run/portdemux ]
    must [ -z "$(ls /sys/fs/bpf/portdemux 2>/dev/null)" ]
    must fails grep -q portdemux <(ls /etc/systemd/system/*.wants)
    ;;
esac
end ok
