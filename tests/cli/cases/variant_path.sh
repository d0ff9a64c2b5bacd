"$LORAFOLD" merge base -a a -o out --variant ../x
