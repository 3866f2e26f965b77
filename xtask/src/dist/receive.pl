#!/usr/bin/perl
# Counts the datagrams that come to UDP ports, and keeps the counts in /run/received. It returns when it listens.
use strict;
use warnings;
use Socket;

my (%sockets, %counts);
my $all = '';
for my $port (@ARGV) {
    socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
    # SO_RCVBUFFORCE (socket(7)): nothing is lost while this program waits for a CPU.
    setsockopt($socket, SOL_SOCKET, 33, pack('i', 1 << 24)) or die "setsockopt: $!";
    bind($socket, sockaddr_in($port, INADDR_ANY)) or die "bind: $!";
    vec($all, fileno($socket), 1) = 1;
    ($sockets{$port}, $counts{$port}) = ($socket, 0);
}

sub keep {
    open(my $file, '>', '/run/received.new') or die "open: $!";
    print $file "$_ $counts{$_}\n" for sort keys %counts;
    close($file) or die "close: $!";
    rename('/run/received.new', '/run/received') or die "rename: $!";
}

keep();
my $child = fork();
defined($child) or die "fork: $!";
exit 0 if $child;
while (1) {
    select(my $ready = $all, undef, undef, undef);
    for my $port (keys %sockets) {
        for (1 .. 1000) {
            defined(recv($sockets{$port}, my $datagram, 64, MSG_DONTWAIT)) or last;
            $counts{$port}++;
        }
    }
    keep();
}
