"$LORAFOLD" help xyzzyxyzzy
