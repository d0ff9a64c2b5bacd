"$LORAFOLD" bench --skip-disk --skip-kernels
