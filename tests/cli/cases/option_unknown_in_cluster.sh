"$LORAFOLD" merge base -a a -o out -nz
