#!/usr/bin/perl
# Sends datagrams to UDP ports of an address in turn until it is terminated, and prints how many went to each.
use strict;
use warnings;
use Socket;

my ($address, @ports) = @ARGV;
my $is_over = 0;
$SIG{TERM} = sub { $is_over = 1 };
socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
my %to = map { $_ => pack_sockaddr_in($_, inet_aton($address)) } @ports;
my %counts = map { $_ => 0 } @ports;
until ($is_over) {
    for my $port (@ports) {
        defined(send($socket, 'x', 0, $to{$port})) and $counts{$port}++;
    }
    # No more than a wire's queue holds while the other side waits for a CPU.
    select(undef, undef, undef, 0.001);
}
print "$_ $counts{$_}\n" for @ports;
