# A small HTTP server in one process: keep-alive, many connections, and it behaves as the environment says.
# START: seconds before it listens. DIE_AFTER: seconds until it exits with 7; so does the file /tmp/die.
# HEALTHY_AFTER: seconds until /tmp/healthy is there. PORTS: where it listens. PAGE: what it answers,
# followed by the index.html of the code directory. /slow answers after 5 s, /never does not.
# IGNORE_TERM: only a kill ends it. Else it exits at once on TERM, as rude as an app can be: the drain has to protect what is in flight.

$| = 1; $SIG{TERM} = $SIG{INT} = $ENV{IGNORE_TERM} ? 'IGNORE' : sub { exit 0 }; $SIG{PIPE} = 'IGNORE';
unlink '/tmp/die', '/tmp/healthy';
print "app starts\n";
my $begun = time;
my $die_at = defined $ENV{DIE_AFTER} ? $begun + $ENV{DIE_AFTER} : 9e9;
my $healthy_at = $begun + ($ENV{HEALTHY_AFTER} // 0);
my $listen_at = $begun + ($ENV{START} // 0);
my (%listener, %client, %input, %due);
sub check {
    if (time >= $die_at || -e '/tmp/die') { print "app dies\n"; exit 7 }
    if ($healthy_at && time >= $healthy_at) { open my $f, '>', '/tmp/healthy'; $healthy_at = 0 }
    if ($listen_at && time >= $listen_at) { $listen_at = 0; listen_on($_) for split ' ', $ENV{PORTS} // 8000 }
}
sub listen_on {
    socket my $s, 2, 1, 6 or die $!;
    setsockopt $s, 1, 2, 1;
    bind $s, pack('S n a4 x8', 2, shift, "\0" x 4) or die "bind: $!";
    listen $s, 4096;
    fcntl $s, 4, 2048;
    $listener{fileno $s} = $s;
}
sub page {
    my $page = $ENV{PAGE} // '';
    if (open my $f, '<', ($ENV{CODE} // '/var/www/html') . '/index.html') { local $/; $page .= ' ' . <$f> }
    return $page;
}
sub drop { my $n = shift; close delete $client{$n}; delete $input{$n}; delete $due{$n} }
sub answer {
    my ($n, $close) = @_;
    my $body = page();
    my $how = $close ? 'close' : 'keep-alive';
    syswrite $client{$n}, "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: $how\r\n\r\n$body";
    drop($n) if $close;
}
sub serve {
    my $n = shift;
    while (exists $client{$n} && !$due{$n} && $input{$n} =~ s/^(.*?)\r\n\r\n//s) {
        my $head = $1;
        my $close = $head =~ /^\S+ \S+ HTTP\/1\.0/ || $head =~ /^connection:\s*close/im;
        if ($head =~ m{^\S+ /slow}) { $due{$n} = [time + 5, $close] }
        elsif ($head =~ m{^\S+ /never}) { $due{$n} = [9e9, $close] }
        else { answer($n, $close) }
    }
}
while (1) {
    check();
    for my $n (keys %due) { next if time < $due{$n}[0]; my $d = delete $due{$n}; answer($n, $d->[1]); serve($n) if $client{$n} }
    my $r = ''; vec($r, $_, 1) = 1 for keys %listener, keys %client;
    next unless select $r, undef, undef, 0.1;
    for my $n (keys %listener) {
        next unless vec $r, $n, 1;
        while (accept my $c, $listener{$n}) { fcntl $c, 4, 2048; $client{fileno $c} = $c; $input{fileno $c} = '' }
    }
    for my $n (grep { vec $r, $_, 1 } keys %client) {
        my $got = sysread $client{$n}, $input{$n}, 65536, length $input{$n};
        if (!$got) { drop($n) if defined $got || $! != 11; next }
        serve($n);
    }
}
