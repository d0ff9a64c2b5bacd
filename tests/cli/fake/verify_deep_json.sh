"$LORAFOLD" verify cloned --deep base --json -q
