"$LORAFOLD" merge base -a a --output=
