"$LORAFOLD" merge base -a a -o out --kernel avx2
