$LORAFOLD merge base -a a --skip-existing -o out
