"$LORAFOLD" -aone:2 -m=base -o=out plan
