"$LORAFOLD" merge base -a a -o out --overwrite=yes
