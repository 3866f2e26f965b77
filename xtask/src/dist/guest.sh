#!/bin/bash
# Runs in the machine that boots the package, once for each boot, and says on the console what it finds.
#
# From power-on, frames for UDP ports 7 and 8 come in by ens5. The rules drop 7; 8 is free. `receive.pl` listens on both
# from before the network is up.
set -u
export DEBIAN_FRONTEND=noninteractive
exec >/dev/ttyS0 2>&1
unit=portdemux@default
file=/etc/portdemux/default.toml
boot=$(cat /root/boot 2>/dev/null || echo 1)
echo $((boot + 1)) >/root/boot
end() {
    [ "$1" = ok ] || {
        systemctl status $unit --no-pager -l
        journalctl -b --no-pager -u $unit | tail -40
        cat /run/received
        portdemux stats --all
    }
    echo "guest: boot $boot $1"
    sync
    [ "$1" = ok ] && [ "$boot" -lt 3 ] && { systemctl reboot --force; exit; }
    systemctl poweroff --force --force
    exit
}
must() { "$@" || { echo "guest: failed: $*"; end failed; }; }
fails() { ! "$@"; }
# Waits until it is so; under emulation everything takes long.
within() {
    local until=$((SECONDS + 180))
    while [ $SECONDS -lt $until ]; do "$@" && return; sleep 0.2; done
    echo "guest: not within three minutes: $*"
    end failed
}
says() {
    local wanted=$1 said
    shift
    said=$("$@" 2>&1)
    case "$said" in *"$wanted"*) ;; *) echo "guest: '$*' does not say '$wanted' but $said"; end failed ;; esac
}
monotonic() { systemctl show -P "$2" "$1"; }
xdp() { ip -d link show "$1" | grep -q 'prog/xdp'; }
# How many datagrams came to a socket, and how many a program saw and dropped.
arrived() { sed -n "s/^$1 //p" /run/received; }
counted() { portdemux stats --json | perl -ne 'print /"protocol":"udp","port":'"$1"',.*?"'"$2"'":\{"packets":(\d+)/ ? $1 : 0'; }
more() { [ "$("$1" "$2" ${4:-})" -gt "$3" ]; }
is_new() { ! readlink "/proc/$1/exe" | grep -q deleted; }

echo "guest: boot $boot, $(uname -r), $(systemctl --version | head -1)"
must systemctl is-active --quiet $unit
must xdp ens5
# Before anything may bring an interface up.
ready=$(monotonic $unit ActiveEnterTimestampMonotonic)
must [ "$ready" -gt 0 ]
must [ "$ready" -le "$(monotonic network-pre.target ActiveEnterTimestampMonotonic)" ]
must [ "$ready" -le "$(monotonic systemd-networkd ExecMainStartTimestampMonotonic)" ]
# The network is up, and of all that was sent since it is, nothing came past the rules.
within more arrived 8 20
within more counted 7 20 dropped
must [ "$(arrived 7)" = 0 ]
says 'waiting for late0' systemctl show -P StatusText $unit
case "$boot" in
1)
    says '1 rule ' portdemux status
    says '(in sync)' portdemux status
    # A mistake changes nothing.
    cp $file /root/good.toml
    echo 'nonsense = 1' >>$file
    must fails systemctl reload $unit
    says 'generation 1 ' portdemux status
    # What the unit may do is enough for rules of every kind.
    cp /root/good.toml $file
    cat /root/every.toml >>$file
    must systemctl reload $unit
    says '8 rules' portdemux status
    says 'perl ' portdemux rules
    must fails grep -q 'Operation not permitted' <(journalctl -b --no-pager -u $unit)
    must cp /root/good.toml $file
    printf '\n[[rule]]\nname = "more"\nport = "9/udp"\nto = "drop"\n' >>$file
    must systemctl reload $unit
    says '2 rules' portdemux status
    # Stopping leaves protection on.
    must systemctl stop $unit
    must xdp ens5
    before=$(counted 7 dropped)
    within more counted 7 "$before" dropped
    must systemctl start $unit
    must portdemux add 11/udp --name by-hand --to drop
    says '(differs from what is in force)' portdemux status
    must portdemux save
    says '(in sync)' portdemux status
    ;;
2)
    says '3 rules' portdemux status
    says by-hand portdemux rules
    # An interface that comes late.
    must ip netns add peer
    must ip link add late0 type veth peer name wire netns peer
    within xdp late0
    must ip addr add 198.51.100.2/24 dev late0
    must ip link set late0 up
    must ip -n peer addr add 198.51.100.1/24 dev wire
    must ip -n peer link set wire up
    is_up() { ip link show late0 | grep -q 'state UP'; }
    within is_up
    # By it comes traffic for a port that is dropped and for one that is free.
    ip netns exec peer perl /root/send.pl 198.51.100.2 9 10 >/root/sent &
    sender=$!
    within more counted 9 100 dropped
    within more arrived 10 100
    pid=$(systemctl show -P MainPID $unit)
    must portdemux add 13/udp --name unsaved
    # A version of another ABI takes the package's place.
    pins() { ls /sys/fs/bpf/portdemux/default; }
    before=$(pins)
    must dpkg --install /root/newer.deb
    must [ "$(pins)" != "$before" ]
    within is_new "$pid"
    must [ "$pid" = "$(systemctl show -P MainPID $unit)" ]
    must systemctl is-active --quiet $unit
    says unsaved portdemux rules
    must xdp ens5
    must xdp late0
    before=$(counted 9 dropped)
    within more counted 9 $((before + 100)) dropped
    kill $sender
    wait $sender
    sent() { sed -n "s/^$1 //p" /root/sent; }
    lost=$(ip netns exec peer cat /sys/class/net/wire/statistics/tx_dropped)
    total=$(($(sent 9) + $(sent 10) - lost))
    came() { [ $(($(counted 9 received) + $(counted 10 received))) = $total ]; }
    within came
    whole() { [ "$(arrived 10)" = "$(counted 10 received)" ]; }
    within whole
    must [ "$(counted 9 dropped)" = "$(counted 9 received)" ]
    must [ "$(counted 10 dropped)" = 0 ]
    must [ "$(arrived 9)" = 0 ]
    must [ "$(arrived 7)" = 0 ]
    echo "guest: of $total datagrams through the upgrade $(counted 9 dropped) were dropped and $(arrived 10) arrived"
    # What is to hold at the next boot.
    must portdemux save
    echo 'nonsense = 1' >>$file
    ;;
3)
    # The file has a mistake: what held last does.
    says '4 rules' portdemux status
    says 'was not put in force' portdemux status
    says 'has a mistake' systemctl show -P StatusText $unit
    says nonsense journalctl -b --no-pager -u $unit
    must sed -i /nonsense/d $file
    must systemctl reload $unit
    says '(in sync)' portdemux status
    is_mended() { [ "$(systemctl show -P StatusText $unit)" = 'waiting for late0' ]; }
    within is_mended
    # Removed, nothing of any instance is attached, and what was dropped arrives; purged, nothing is left.
    must portdemux --instance other attach lo
    must xdp lo
    must dpkg --remove portdemux
    must fails xdp ens5
    must fails xdp lo
    within more arrived 7 0
    must [ -e $file ]
    must dpkg --purge portdemux
    for left in /etc/portdemux /run/portdemux /var/lib/portdemux; do must [ ! -e $left ]; done
    must [ -z "$(ls /sys/fs/bpf/portdemux 2>/dev/null)" ]
    must fails grep -q portdemux <(ls /etc/systemd/system/*.wants)
    must fails systemctl is-active --quiet $unit
    ;;
esac
end ok
