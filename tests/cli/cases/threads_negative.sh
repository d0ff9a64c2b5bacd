"$LORAFOLD" bench --threads=-1
